import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { Descriptor } from "../../../src/image/Descriptor.ts"
import { Digest } from "../../../src/image/Digest.ts"
import * as ImageConfig from "../../../src/image/ImageConfig.ts"
import * as MediaType from "../../../src/image/MediaType.ts"
import * as OciForm from "../../../src/image/v1/OciForm.ts"

const hash = (algorithm: string, bytes: Uint8Array): string => createHash(algorithm).update(bytes).digest("hex")
const digestOf = (text: string) => Digest.make(`sha256:${createHash("sha256").update(text).digest("hex")}`)
const id = (at: number) => createHash("sha256").update(String(at)).digest("hex")
const layer = (text: string) => ({ blob: new Descriptor({ mediaType: MediaType.layerOf("gzip"), digest: digestOf(`blob ${text}`), size: 10 }), diffId: digestOf(text) })
const empty = { ...layer("empty"), diffId: Digest.make("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef") }

/** The chain whose digests are fixed below: a plain base, a step before 1.8.3, a thrown away one, one with what JSON printers change. */
const steps: ReadonlyArray<OciForm.Step> = [
  { id: id(0), layer: layer("one"), json: `{"id":"${id(0)}","created":"2015-09-08T21:30:30.307853054Z","docker_version":"1.9.1","architecture":"amd64","os":"linux","container_config":{"Cmd":["/bin/sh","-c","#(nop) ADD file:1 in /"]}}` },
  { id: id(1), layer: layer("two"), json: `{"id":"${id(1)}","parent":"${id(0)}","created":"2015-09-08T23:30:30.500+02:00","docker_version":"1.8.2","architecture":"amd64","os":"linux","author":"Jörg <j@x>","Size":12}` },
  { id: id(2), layer: empty, json: `{"id":"${id(2)}","parent":"${id(1)}","created":"2015-09-08T21:31:00Z","docker_version":"1.9.1","throwaway":true,"architecture":"amd64","os":"linux","comment":"nothing"}` },
  { id: id(3), layer: empty, json: `{"id":"${id(3)}","parent":"${id(2)}", "created" : "2015-09-08T21:31:00Z","docker_version":"1.10.0","config":{"Env":["A=\\u003c"],"Labels":{"z":"1","a":"2"}},"n":1.50,"architecture":"arm","os":"linux"}` },
  { id: id(4), layer: undefined, json: `{"id":"${id(4)}","parent":"${id(3)}"}` }
]
const fixed = [
  "sha256:56a95533ff695aec035b96fa8e408396b21c9ac805a2774c6bee0d924b0993fd sha256:e1cca7b9fc41b01542f5c5b8780eba61c983046c23b22a8496db09c37bd773a6",
  "sha256:e105b8fef9e827794ee584d924c38a0897fa383121ab24b87eba6dae937506e6 sha256:8ba022de5749369ee6fe14dbf510972c695a388acc4f989d55de598daad08da6",
  "sha256:21e7be07aa2a6120d04995b695d1be2870bccdb913c14b0b3bbf9f6810546466 sha256:f118ebaea109d3a21e0e5f89f734f3e8e257b538b614017ee95c93e3e7deeda0",
  "sha256:d7ae473fb3def78db4a9d6d56bc52538b54b8881e558490de84a1e09b611fcc3 sha256:ed5a0a4aa33bb6b49b8fb62677b0edec1b76e0ccd8ee347947c02a8697b77a1d",
  "sha256:4f5aab18e08d1b4af24089be328fc4b922eddcc25945b194d19186c3f2d6058b sha256:4cfc09246aac110b7e6da7a7c20ab3a29ee1872988cfb241c2eb81aebf74494e"
]

const formsOf = (steps: ReadonlyArray<OciForm.Step>) => Result.getOrThrow(OciForm.chain(steps, hash))
const digests = (steps: ReadonlyArray<OciForm.Step>) => formsOf(steps).map(({ config, manifest }) => `${config.descriptor.digest} ${manifest.descriptor.digest}`)

const Text = Schema.String.check(Schema.isMaxLength(20))
const Made = Schema.Struct({
  comment: Text, author: Text, command: Schema.Array(Text).check(Schema.isMaxLength(3)), version: Schema.Literals(["1.9.1", "1.6.0", "1.8.3-rc1", ""]),
  architecture: Schema.Literals(["amd64", "arm", ""]), layer: Schema.Literals(["none", "empty", "thrown", "full"]), label: Text, extra: Schema.Finite
})
const made = (all: ReadonlyArray<typeof Made.Type>): ReadonlyArray<OciForm.Step> => all.map((one, at) => ({
  id: id(at), layer: one.layer === "none" ? undefined : one.layer === "full" ? layer(`layer ${at}`) : empty,
  json: JSON.stringify({
    id: id(at), ...(at === 0 ? {} : { parent: id(at - 1) }), created: "2015-09-08T21:30:30Z", comment: one.comment, author: one.author, docker_version: one.version,
    container_config: { Cmd: one.command }, config: { Labels: { [`l${one.label}`]: one.comment } }, architecture: one.architecture, os: "linux", extra: one.extra,
    ...(one.layer === "thrown" ? { throwaway: true } : {})
  })
}))

describe("OciForm", () => {
  it.effect.prop("gives every image a config and manifest that are valid and list its layers", [Schema.Array(Made).check(Schema.isMaxLength(6))], ([all]) => Effect.sync(() => {
    const steps = made(all)
    const forms = formsOf(steps)
    assert.strictEqual(forms.length, steps.length)
    for (const [at, { config, layers, manifest }] of forms.entries()) {
      const image = Result.getOrThrow(ImageConfig.decode(config.raw))
      const kept = all.slice(0, at + 1).map(({ layer }) => layer !== "none" && layer !== "thrown")
      assert.deepStrictEqual(layers, steps.slice(0, at + 1).flatMap(({ layer }, step) => layer !== undefined && kept[step] === true ? [layer] : []))
      assert.deepStrictEqual(image.rootfs.diffIds, layers.map(({ diffId }) => diffId))
      assert.deepStrictEqual(image.history.map(({ emptyLayer }) => !emptyLayer), kept)
      for (const { descriptor, raw } of [config, manifest]) {
        assert.deepStrictEqual([descriptor.digest, descriptor.size], [`sha256:${hash("sha256", raw)}`, raw.byteLength])
      }
      const written: unknown = JSON.parse(Buffer.from(manifest.raw).toString())
      assert.deepStrictEqual(written, {
        schemaVersion: 2, mediaType: MediaType.ociManifest,
        config: { mediaType: MediaType.ociConfig, digest: config.descriptor.digest, size: config.descriptor.size },
        layers: layers.map(({ blob: { digest, mediaType, size } }) => ({ mediaType: MediaType.asOci(mediaType), digest, size })), annotations: { [OciForm.idAnnotation]: id(at) }
      })
    }
    assert.deepStrictEqual(digests(steps), digests(made(all)))
    for (let at = 0; at < steps.length; at++) assert.deepStrictEqual(digests(steps.slice(0, at)), digests(steps).slice(0, at), "what is above does not matter")
  }), { arbitrary: { runs: 40 } })

  it("has these digests for ever", () => assert.deepStrictEqual(digests(steps), fixed))

  it("takes an empty layer away only where the build said that it was thrown away", () => {
    const [top] = formsOf(steps).slice(-1)
    assert.deepStrictEqual(top?.layers.map(({ diffId }) => diffId), [digestOf("one"), digestOf("two"), empty.diffId])
    const full = steps.map((step, at) => at === 2 ? { ...step, layer: layer("three") } : step)
    assert.strictEqual(formsOf(full).at(-1)?.layers.length, 4)
  })

  it("refuses a chain deeper than is taken, and what is no image", () => {
    const base = steps.slice(0, 1)
    const deep = Array.from({ length: OciForm.maxDepth }, (_, at) => ({ ...steps[4], id: id(at), json: "{}", layer: undefined }))
    assert.isTrue(Result.isSuccess(OciForm.chain(deep, hash)))
    assert.isTrue(Result.isFailure(OciForm.chain([...deep, ...base], hash)))
    for (const json of ["", "[]", "{", `{"created":"yesterday"}`, `{"config":[]}`]) assert.isTrue(Result.isFailure(OciForm.chain([{ id: id(0), json, layer: undefined }], hash)), json)
  })

  it("refuses a chain whose configs, each with the history of all below, would be more than is taken", () => {
    const of = (count: number, size: number) => OciForm.chain(Array.from({ length: count }, (_, at) => ({ ...steps[4], id: id(at), json: JSON.stringify({ comment: "c".repeat(size) }), layer: undefined })), hash)
    assert.isTrue(Result.isSuccess(of(127, 1500)))
    const refused = of(256, 16_000)
    assert.include(Result.isFailure(refused) ? refused.failure.message : "", "would have more than 33554432 bytes in all")
  })

  it("is the same under another time zone, language, umask and user", () => {
    const module = new URL("../../../src/image/v1/OciForm.ts", import.meta.url).href
    const source = `import { createHash } from "node:crypto"
      import * as OciForm from ${JSON.stringify(module)}
      process.umask(0o777)
      const forms = OciForm.chain(${JSON.stringify(steps)}, (algorithm, bytes) => createHash(algorithm).update(bytes).digest("hex")).success
      console.log(JSON.stringify(forms.map(({ config, manifest }) => config.descriptor.digest + " " + manifest.descriptor.digest)))`
    for (const [env, uid] of [[{ TZ: "Pacific/Chatham", LANG: "tr_TR.UTF-8", LC_ALL: "tr_TR.UTF-8" }, undefined], [{ TZ: "America/St_Johns", LANG: "C" }, 65534]] as const) {
      const { status, stderr, stdout } = spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", "--input-type=module", "-e", source], {
        encoding: "utf8", cwd: "/", env: { ...env }, ...(uid === undefined || process.getuid?.() !== 0 ? {} : { uid, gid: uid })
      })
      assert.strictEqual(status, 0, stderr)
      assert.deepStrictEqual(JSON.parse(stdout), fixed)
    }
  })
})
