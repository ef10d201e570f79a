import { Result, Schema } from "effect"
import { isImageId } from "../image/v1/FixManifest.ts"
import * as LegacyReference from "../image/v1/LegacyReference.ts"
import * as V1Image from "../image/v1/V1Image.ts"
import type { ArchiveFile } from "./ArchiveFile.ts"
import * as Document from "./Document.ts"
import { ArchiveRefused } from "./Fault.ts"
import { type Name, nameOf, textOf, type Tree } from "./Tree.ts"

/** An image of an archive of Docker 1.9 or before. */
export interface LegacyImage {
  /** The folder it is in: usually its id. */
  readonly folder: string
  readonly id: string
  /** Its parent's id; undefined for a base. */
  readonly parent: string | undefined
  /** `json`, verbatim. */
  readonly json: Uint8Array
  /** `layer.tar`: a tar, maybe compressed; maybe another image's, if the archive has it as a link. */
  readonly layer: ArchiveFile
}

/** A tag of `repositories`: names checked by 1.9's grammar, `address` (an id, or a name) as written. */
export interface LegacyTag {
  /** As 1.9's tag store had it (`busybox`), and in full (`docker.io/library/busybox`). */
  readonly name: string
  readonly canonical: string
  readonly tag: string
  readonly address: string
}

/** Images to register in this order, and what then ends the load, if anything does. */
export interface LegacyOrder {
  readonly images: ReadonlyArray<LegacyImage>
  readonly failure: ArchiveRefused | undefined
}

/** A legacy archive: its folders, and its tags (in the order of the file). */
export interface LegacyArchive {
  readonly tree: Tree
  /** Throws `ArchiveRefused` where a name is none, or the file no map: 1.9 looked at it last. */
  readonly tags: ReadonlyArray<LegacyTag>
  /** Every id or folder name that the order of registration may depend on being in the graph. */
  readonly addresses: ReadonlyArray<string>
  /**
   * What 1.9's load registers (docker: recursiveLoad): every folder in name order unless `known` has it, parents first.
   * Missing parts, bad json, bad ids, cycles (where 1.9 never returned) end the order with a failure.
   */
  order(known: ReadonlySet<string>): LegacyOrder
}

/** All json documents of one archive together: 64 MiB. */
const jsonCap = 64 * 1024 * 1024

/** So many ancestors of an image are followed. 1.9 could not run an image with more than 125. */
const depthCap = 1024

const Repositories = Schema.NullOr(Schema.Record(Schema.String, Schema.NullOr(Schema.Record(Schema.String, Schema.String))))

/** The tags of `repositories`, all names checked. A missing file has none. Throws `ArchiveRefused`. */
const tagsOf = (tree: Tree): ReadonlyArray<LegacyTag> => {
  const file = tree.find(nameOf("repositories"))
  if (file === undefined) return []
  const checked = <A>(read: Result.Result<A, LegacyReference.InvalidLegacyReference>): A => {
    if (Result.isFailure(read)) throw file.refuse(read.failure.message)
    return read.success
  }
  return Object.entries(Document.decode(Repositories, file) ?? {}).flatMap(([repository, tags]) => {
    checked(LegacyReference.checkRepository(repository))
    // 1.9's tag store looked at nothing else. Capitals are let through; what is no name in small letters either is not, nor is any text with a dot or colon a host.
    const { index } = checked(LegacyReference.repositoryInfo(repository.toLowerCase()))
    if (!/^[a-z0-9[]/.test(index)) throw file.refuse(`"${repository}" names no host`)
    const name = LegacyReference.normalizeLocalName(repository)
    return Object.entries(tags ?? {}).map(([tag, address]) => ({
      name, canonical: LegacyReference.canonicalOf(name), tag: checked(LegacyReference.checkTag(tag === "" ? "latest" : tag)), address
    }))
  })
}

class Reading implements LegacyArchive {
  readonly tree: Tree
  private readonly read = new Map<Name, LegacyImage>()
  private held = 0

  constructor(tree: Tree) {
    this.tree = tree
  }

  get tags(): ReadonlyArray<LegacyTag> {
    return tagsOf(this.tree)
  }

  get addresses(): ReadonlyArray<string> {
    const found = new Set(this.tree.folders.map(textOf))
    for (const folder of this.tree.folders) {
      try {
        const { id, parent } = this.image(folder)
        found.add(id)
        if (parent !== undefined) found.add(parent)
      } catch (error) {
        if (!(error instanceof ArchiveRefused)) throw error // told by `order`, if it comes so far
      }
    }
    return [...found]
  }

  order(known: ReadonlySet<string>): LegacyOrder {
    const images: Array<LegacyImage> = []
    const there = new Set(known)
    try {
      for (const folder of this.tree.folders) this.load(folder, there, images)
      return { images, failure: undefined }
    } catch (error) {
      if (!(error instanceof ArchiveRefused)) throw error
      return { images, failure: error }
    }
  }

  /** One folder's image after its ancestors. */
  private load(folder: Name, there: Set<string>, images: Array<LegacyImage>): void {
    const line: Array<LegacyImage> = []
    const seen = new Set<string>()
    for (let at = folder; !there.has(textOf(at));) {
      const image = this.image(at)
      if (image.parent === image.id) throw this.refuse(`${image.folder}/json`, "the image is its own parent")
      if (seen.has(image.id) || seen.has(at)) throw this.refuse(`${image.folder}/json`, "the image is one of its own ancestors")
      if (line.length >= depthCap) throw this.refuse(`${image.folder}/json`, `it has more than ${depthCap} ancestors`)
      seen.add(image.id).add(at)
      line.push(image)
      if (image.parent === undefined || there.has(image.parent)) break
      at = nameOf(image.parent)
    }
    for (const image of line.reverse()) {
      if (image.parent !== undefined && !there.has(image.parent)) {
        throw this.refuse(`${image.folder}/json`, `its parent ${image.parent} is not what is in the folder of that name`)
      }
      images.push(image)
      there.add(image.id)
    }
  }

  private image(folder: Name): LegacyImage {
    const known = this.read.get(folder)
    if (known !== undefined) return known
    const part = (name: string): ArchiveFile => {
      const file = this.tree.find(`${folder}/${name}`)
      if (file === undefined) throw this.refuse(`${textOf(folder)}/${name}`, "it is missing")
      return file
    }
    const document = part("json")
    const json = document.bytes(Document.documentCap)
    this.held += json.byteLength
    if (this.held > jsonCap) throw document.refuse(`the json documents of the archive have more than ${jsonCap} bytes`)
    const layer = part("layer.tar")
    const read = V1Image.decode(Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString("utf8"))
    if (Result.isFailure(read)) throw document.refuse(read.failure.message)
    const { id, parent } = read.success
    if (!isImageId(id)) throw document.refuse(`image ID '${id}' is invalid`)
    if (parent !== "" && !isImageId(parent)) throw document.refuse(`its parent '${parent}' is no image ID`)
    const image = { folder: textOf(folder), id, parent: parent === "" ? undefined : parent, json, layer }
    this.read.set(folder, image)
    return image
  }

  private refuse(entry: string, rule: string): ArchiveRefused {
    return new ArchiveRefused({ archive: this.tree.archive, entry, rule })
  }
}

/** Reads an archive of Docker 1.9 or before. */
export const read = (tree: Tree): LegacyArchive => new Reading(tree)
