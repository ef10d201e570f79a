import { Effect, type FileSystem, Redacted, Result } from "effect"
import { X509Certificate } from "node:crypto"
import { plainTls, type Tls } from "../route/Route.ts"
import * as Certificates from "./Certificates.ts"
import { ConfigError } from "./ConfigError.ts"

/** Reads of configuration: what is not there is undefined, what cannot be read a `ConfigError`. */
export interface Files {
  readonly text: (path: string) => Effect.Effect<string | undefined, ConfigError>
  /** The names in a folder. A folder that this user may not look into is none. */
  readonly names: (path: string) => Effect.Effect<ReadonlyArray<string> | undefined, ConfigError>
  /** The certificates in these files; one that is missing is an error. `from` names them. */
  readonly tls: (
    from: string, files: { readonly ca: ReadonlyArray<string>; readonly client: ReadonlyArray<readonly [certificate: string, key: string | undefined]> }
  ) => Effect.Effect<Tls, ConfigError>
  /** The certificates in a file, PEM, one each; undefined: there is no such file. What is none is left out. */
  readonly authorities: (path: string) => Effect.Effect<ReadonlyArray<string> | undefined>
  /** What the folders of certificates have for a host, together. */
  readonly certificates: (folders: ReadonlyArray<string>, hosts: ReadonlyArray<string>) => Effect.Effect<Tls, ConfigError>
}

/** `a` and `b` together. */
export const both = (a: Tls, b: Tls): Tls => ({
  ca: [...a.ca, ...b.ca], client: [...a.client, ...b.client], verify: a.verify && b.verify, connect: a.connect ?? b.connect
})

/** The certificates in a text that can be read, each as Node writes it. */
export const each = (text: string): ReadonlyArray<string> =>
  (text.match(/-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[\s\S]*?-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g) ?? []).flatMap((block) =>
    Result.match(Result.try(() => new X509Certificate(block).toString()), { onFailure: () => [], onSuccess: (pem) => [pem] }))

/** Over a file system. */
export const make = (fs: FileSystem.FileSystem): Files => {
  const problem = (path: string) => (error: { readonly reason: { readonly _tag: string } }) => new ConfigError({ path, problem: `it cannot be read (${error.reason._tag})` })
  const text = (path: string) => fs.readFileString(path).pipe(
    Effect.map((text): string | undefined => text),
    Effect.catch((error) => error.reason._tag === "NotFound" || error.reason._tag === "BadResource" ? Effect.succeed(undefined) : Effect.fail(problem(path)(error))))
  const names = (path: string) => fs.readDirectory(path).pipe(
    Effect.map((names): ReadonlyArray<string> | undefined => names),
    Effect.catch((error) => ["NotFound", "BadResource", "PermissionDenied"].includes(error.reason._tag) ? Effect.succeed(undefined) : Effect.fail(problem(path)(error))))
  const tls: Files["tls"] = Effect.fnUntraced(function*(from, { ca, client }) {
    const need = (path: string) => Effect.flatMap(text(path), (content) =>
      content === undefined ? Effect.fail(new ConfigError({ path: from, problem: `the file ${path} that it names is not there` })) : Effect.succeed(content))
    const pem = (path: string) => Effect.flatMap(need(path), (content) =>
      content.includes("-----BEGIN ") ? Effect.succeed(content) : Effect.fail(new ConfigError({ path, problem: "there is nothing in PEM form in it" })))
    return {
      ...plainTls, ca: yield* Effect.forEach(ca, pem),
      client: yield* Effect.forEach(client, Effect.fnUntraced(function*([certificate, key]) {
        return { cert: yield* pem(certificate), key: Redacted.make(yield* pem(key ?? certificate)) }
      }))
    }
  })
  const authorities: Files["authorities"] = (path) => fs.readFileString(path).pipe(Effect.map(each), Effect.orElseSucceed(() => undefined))
  const certificates: Files["certificates"] = Effect.fnUntraced(function*(folders, hosts) {
    let all = plainTls
    for (const folder of folders) for (const host of hosts) {
      const path = `${folder}/${host}`
      const listed = yield* names(path)
      if (listed === undefined) continue
      const found = Certificates.read(path, listed)
      if (Result.isFailure(found)) return yield* found.failure
      all = both(all, yield* tls(path, found.success))
    }
    return all
  })
  return { text, names, tls, authorities, certificates }
}
