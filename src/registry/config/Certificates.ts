import { Result } from "effect"
import { ConfigError } from "./ConfigError.ts"

/** The files of one host's folder of certificates. */
export interface CertificateFiles {
  /** Certificate authorities, trusted besides those that are anyway. */
  readonly ca: ReadonlyArray<string>
  /** Client certificates, each with the file of its key. */
  readonly client: ReadonlyArray<readonly [certificate: string, key: string]>
}

/**
 * What the names in the folder `folder` (`certs.d/<host[:port]>` of Docker or containers) mean: `*.crt` are authorities, `*.cert` and
 * `*.key` client certificates and their keys. One without the other is refused in Docker's words.
 */
export const read = (folder: string, names: ReadonlyArray<string>): Result.Result<CertificateFiles, ConfigError> => {
  const ca: Array<string> = []
  const client: Array<readonly [string, string]> = []
  for (const name of [...names].sort()) {
    if (name.endsWith(".crt")) ca.push(`${folder}/${name}`)
    else if (name.endsWith(".cert")) {
      const key = `${name.slice(0, -".cert".length)}.key`
      if (!names.includes(key)) return Result.fail(new ConfigError({ path: folder, problem: `missing key ${key} for client certificate ${name}. CA certificates must use the extension .crt` }))
      client.push([`${folder}/${name}`, `${folder}/${key}`])
    } else if (name.endsWith(".key")) {
      const certificate = `${name.slice(0, -".key".length)}.cert`
      if (!names.includes(certificate)) return Result.fail(new ConfigError({ path: folder, problem: `missing client certificate ${certificate} for key ${name}` }))
    }
  }
  return Result.succeed({ ca, client })
}
