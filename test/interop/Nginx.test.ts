import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { ImageBuilder } from "../../src/testing/index.ts"
import { dockerRegistry, type Lab, lab, withPeers } from "./peers.ts"
import { directory } from "./trees.ts"

const { image, layer, noise } = ImageBuilder
const size = 3_000_000
const built = image({ layers: [layer([{ path: "noise", contents: noise("nginx", size) }], { compression: "none" }), layer([{ path: "small" }])] })
const big = built.layers[0]?.digest ?? ""

/** A port that is free now. */
const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** nginx with these servers in its configuration, in a folder of its own; it goes with the scope. */
const nginx = Effect.fnUntraced(function*(lab: Lab, http: string, outer = "") {
  const folder = mkdtempSync(lab.path("nginx-"))
  writeFileSync(join(folder, "nginx.conf"), `
daemon off; pid ${folder}/pid; error_log ${folder}/error.log; worker_processes 1; ${process.getuid?.() === 0 ? "user root;" : ""} ${outer}
events { worker_connections 64; }
http {
  log_format told '$request $status $bytes_sent $http_authorization'; access_log ${folder}/access.log told;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  proxy_set_header Host $http_host;
  ${http}
}
`)
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn("nginx", ["-p", folder, "-c", join(folder, "nginx.conf")], { stdio: ["ignore", "ignore", "pipe"], env: { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin` } })),
    (child) => Effect.callback<void>((resume) => {
      child.on("close", () => resume(Effect.void))
      if (child.exitCode === null) child.kill("SIGTERM")
      else resume(Effect.void)
    }))
  for (let n = 0; n < 100; n++) {
    yield* Effect.sleep("50 millis")
    try {
      if (readFileSync(join(folder, "pid"), "utf8").trim() !== "") break
    } catch {
      if (child.exitCode !== null) assert.fail(readFileSync(join(folder, "error.log"), "utf8"))
    }
  }
  const log = () => readFileSync(join(folder, "access.log"), "utf8").trim().split("\n").filter((line) => line !== "")
  /** Cuts what is being answered, and goes on with new workers. */
  const cut = Effect.sync(() => { child.kill("SIGHUP") })
  return { cut, log, folder }
})

/** A registry with the image, and the port of a proxy to be. */
const setting = Effect.gen(function*() {
  const one = yield* lab
  const registry = yield* dockerRegistry(one)
  yield* one.copy(`dir:${directory(one.path("image"), built)}`, `docker://${registry.host}/app:1`)
  const port = yield* freePort
  return { one, registry, port, reference: `127.0.0.1:${port}/app:1` }
})
const digest = built.manifest.descriptor.digest

withPeers("nginx before docker-registry", ["nginx", "docker-registry", "skopeo", "openssl"], () => {
  it.live("cuts in the middle: what is missing alone is fetched", () => Effect.gen(function*() {
    const { one, port, reference, registry } = yield* setting
    const { cut, log } = yield* nginx(one, `server { listen 127.0.0.1:${port}; location / { proxy_pass http://${registry.host}; proxy_max_temp_file_size 0; }
      location ~ /blobs/ { proxy_pass http://${registry.host}; limit_rate 700k; } }`, "worker_shutdown_timeout 100ms;")
    const fiber = yield* Effect.forkChild(one.pulled("-q", reference))
    // The partial file grows: the proxy is in the middle of it.
    const partial = () => Math.max(0, ...(existsSync(one.path("store", "ingest")) ? readdirSync(one.path("store", "ingest")) : [])
      .map((name) => statSync(one.path("store", "ingest", name), { throwIfNoEntry: false })).map((file) => file?.isFile() === true ? file.size : 0))
    while (partial() < size / 5) yield* Effect.sleep("25 millis")
    yield* cut
    assert.strictEqual(yield* Fiber.join(fiber), digest)
    const answers = log().filter((line) => line.includes(big)).map((line) => line.split(" ").map(Number))
    assert.deepStrictEqual(answers.map((words) => words[3]), [200, 206])
    const sent = answers.reduce((sum, words) => sum + (words[4] ?? 0), 0)
    // What was under way when it cut counts too: nginx says how many bytes it handed to the kernel.
    assert.isBelow(sent - size, size / 2)
  }).pipe(Effect.scoped), 60_000)

  it.live("limits: 429 and 503 are waited for", () => Effect.gen(function*() {
    const { one, port, reference, registry } = yield* setting
    const { log } = yield* nginx(one, `limit_req_zone $binary_remote_addr zone=all:1m rate=2r/s; limit_req_status 429; add_header Retry-After 1 always;
      server { listen 127.0.0.1:${port}; location / { limit_req zone=all; proxy_pass http://${registry.host}; } }`)
    assert.strictEqual(yield* one.pulled("-q", reference), digest)
    assert.isAbove(log().filter((line) => / 429 /.test(line)).length, 0)
  }).pipe(Effect.scoped), 60_000)

  it.live("redirects blobs to storage, which is shown no password", () => Effect.gen(function*() {
    const one = yield* lab
    const registry = yield* dockerRegistry(one, { ada: "hush" })
    const open = yield* dockerRegistry(one)
    const [port, storage] = [yield* freePort, yield* freePort]
    one.login({ [registry.host]: "ada:hush", [`127.0.0.1:${port}`]: "ada:hush" })
    const folder = directory(one.path("image"), built)
    yield* one.copy(`dir:${folder}`, `docker://${registry.host}/app:1`)
    yield* one.copy(`dir:${folder}`, `docker://${open.host}/app:1`)
    const front = yield* nginx(one, `server { listen 127.0.0.1:${port}; location / { proxy_pass http://${registry.host}; } location ~ /blobs/ { return 307 http://127.0.0.1:${storage}$request_uri?sig=1; } }`)
    const back = yield* nginx(one, `server { listen 127.0.0.1:${storage}; location / { proxy_pass http://${open.host}; } }`)
    assert.strictEqual(yield* one.pulled("-q", `127.0.0.1:${port}/app:1`), digest)
    assert.isTrue(front.log().some((line) => line.includes(" Basic ")))
    assert.isAbove(back.log().length, 2)
    assert.isTrue(back.log().every((line) => line.endsWith(" -")), back.log().join("\n"))
  }).pipe(Effect.scoped), 60_000)

  it.live("asks for a client certificate: certs.d has it, or the message says so; plain HTTP to its TLS port", () => Effect.gen(function*() {
    const { one, port, reference, registry } = yield* setting
    yield* one.must("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", one.path("tls.key"), "-out", one.path("tls.pem"), "-days", "9", "-subj", "/CN=lab", "-addext", "subjectAltName=IP:127.0.0.1"])
    yield* nginx(one, `server { listen 127.0.0.1:${port} ssl; ssl_certificate ${one.path("tls.pem")}; ssl_certificate_key ${one.path("tls.key")};
      ssl_client_certificate ${one.path("tls.pem")}; ssl_verify_client on; location / { proxy_pass http://${registry.host}; } }`)
    const folder = one.path("config", "certs.d", `127.0.0.1:${port}`)
    mkdirSync(folder, { recursive: true })
    const pem = readFileSync(one.path("tls.pem"))
    writeFileSync(join(folder, "ca.crt"), pem)
    const none = yield* one.pull("-q", reference)
    assert.strictEqual(none.code, 5)
    assert.include(none.stderr, "it asks for a client certificate, and none is configured for it")
    writeFileSync(join(folder, "client.cert"), pem)
    const half = yield* one.pull("-q", reference)
    assert.strictEqual(half.code, 2)
    assert.include(half.stderr, "missing key client.key for client certificate client.cert")
    writeFileSync(join(folder, "client.key"), readFileSync(one.path("tls.key")))
    assert.strictEqual(yield* one.pulled("-q", reference), digest)
  }).pipe(Effect.scoped), 60_000)
})
