import { Schema } from "effect"
import { createHash } from "node:crypto"
import { maxLayers } from "../image/Manifest.ts"
import type { ArchiveFile } from "./ArchiveFile.ts"
import * as Document from "./Document.ts"
import { nameOf, type Tree } from "./Tree.ts"

/** An image as `manifest.json` has it. */
export interface DockerImage {
  /** The config's verbatim bytes and the hex digits of their SHA-256: the image's id. */
  readonly id: string
  readonly config: Uint8Array
  /** Bottom first; a layer that is there twice is one file. */
  readonly layers: ReadonlyArray<ArchiveFile>
  readonly names: ReadonlyArray<Document.ImageName>
}

const nullable = <S extends Schema.Constraint>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))
const Item = Schema.Struct({ Config: Schema.String, RepoTags: nullable(Schema.Array(Schema.String)), Layers: nullable(Schema.Array(Schema.String)) })
const Manifest = Schema.Array(Item)

/** Images of one archive, and bytes of their configs, at most: 4096 and 64 MiB. */
const imageCap = 4096
const configsCap = 64 * 1024 * 1024

/** The images of `manifest.json`; undefined where there is no such file. Throws `ArchiveRefused`. */
export const read = (tree: Tree): ReadonlyArray<DockerImage> | undefined => {
  const file = tree.find(nameOf("manifest.json"))
  if (file === undefined) return undefined
  const items = Document.decode(Manifest, file)
  if (items.length > imageCap) throw file.refuse(`it lists ${items.length} images, and at most ${imageCap} are taken`)
  const found = (name: string, what: string): ArchiveFile => {
    const part = tree.find(nameOf(name))
    if (part === undefined) throw file.refuse(`the ${what} "${name}" is not in the archive`)
    return part
  }
  const configs = new Map<ArchiveFile, { readonly config: Uint8Array; readonly id: string }>()
  let held = 0
  const configOf = (part: ArchiveFile) => {
    const known = configs.get(part)
    if (known !== undefined) return known
    const config = part.bytes(Document.documentCap)
    held += config.byteLength
    if (held > configsCap) throw part.refuse(`the configs of the archive have more than ${configsCap} bytes`)
    const read = { config, id: createHash("sha256").update(config).digest("hex") }
    configs.set(part, read)
    return read
  }
  return items.map(({ Config, Layers, RepoTags }) => {
    const part = found(Config, "config")
    if ((Layers?.length ?? 0) > maxLayers) throw file.refuse(`the image of the config "${Config}" has ${Layers?.length} layers, and at most ${maxLayers} are taken`)
    const { config, id } = configOf(part)
    const claimed = /(?:^|\/)([a-f0-9]{64})(?:\.json)?$/.exec(Config)?.[1]
    if (claimed !== undefined && claimed !== id) throw part.refuse(`its bytes have the digest sha256:${id}, and not the one it is named by`)
    return {
      id, config, layers: (Layers ?? []).map((name) => found(name, "layer")),
      names: (RepoTags ?? []).map((text) => Document.imageName(tree.archive, "manifest.json", text))
    }
  })
}
