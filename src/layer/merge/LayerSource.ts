import { Buffer } from "node:buffer"
import { lstatSync } from "node:fs"
import { tmpdir } from "node:os"
import type { Metadata } from "../apply/Attributes.ts"
import { metadataOf } from "./Copy.ts"
import { Refused } from "../Fault.ts"
import * as Meta from "../apply/Meta.ts"
import { Room, Table } from "../table/Table.ts"
import * as Name from "../tree/Name.ts"
import { type Folder, type Place, Root } from "../tree/Root.ts"
import type { Syscalls } from "../Syscalls.ts"

/** The hard links of a layer whose target is in a layer below. */
export interface LinkRecord {
  readonly path: Name.Name
  readonly target: Name.Name
}

/** A whiteout of `path`, or an opaque folder. */
export interface Hidden {
  readonly path: Name.Name
  readonly opaque: boolean
}

/** An unpacked layer to take from: its files and the records beside them (`Meta.ts`). Nothing of it is changed here. */
export class LayerSource {
  readonly root: Root
  readonly move: boolean
  readonly links: Array<LinkRecord> = []
  private readonly meta: string
  private readonly implied = new Table<1>(new Room(tmpdir(), 8 * 2 ** 20))
  /** What is hidden: how deep the marker file was (two bytes), a letter, and the name, in one text each, for there may be millions. */
  private readonly marks: Array<string> = []

  /** `move`: it may be taken apart. */
  constructor(folder: string, options: { readonly move: boolean }) {
    this.meta = `${folder}/meta`
    this.move = options.move
    this.root = new Root(`${folder}/fs`, { capacity: 64 })
    try {
      for (const record of Meta.read(this.meta)) {
        if (record.t === "whiteout" || record.t === "opaque") this.marks.push(markOf(record.path, record.t === "opaque"))
        else if (record.t === "implied") this.implied.set(record.path, 1)
        else if (record.t === "link") this.links.push(record)
      }
      this.marks.sort((a, b) => a.charCodeAt(0) - b.charCodeAt(0) || a.charCodeAt(1) - b.charCodeAt(1))
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** What of the layers below is hidden, from the root down: what a folder takes along, nothing in it leads to any more. */
  *hidden(): Generator<Hidden> {
    for (const mark of this.marks) yield { path: mark.slice(3), opaque: mark[2] === "o" }
  }

  /** The records of what could not be set, read anew. */
  *unset(): Generator<Meta.Unset & { readonly path: Name.Name }> {
    for (const record of Meta.read(this.meta)) if (record.t === "unset") yield record
  }

  /** Whether the folder `name` of this layer is there only because a child needed it. */
  isImplied(name: Name.Name): boolean {
    return this.implied.has(name)
  }

  /** Whether this layer has an entry of its own for a folder `name`. */
  declares(name: Name.Name): boolean {
    if (this.implied.has(name)) return false
    if (name === "") return true
    const place = this.root.locate(name)
    return place !== undefined && lstatSync(place.path, { throwIfNoEntry: false })?.isDirectory() === true
  }

  /** Whether this layer has anything under the very name `name`. */
  has(name: Name.Name): boolean {
    const place = this.root.locate(name)
    return place !== undefined && place.name === name && lstatSync(place.path, { throwIfNoEntry: false }) !== undefined
  }

  /** The folder `name`, which is there. */
  folder(name: Name.Name): Folder {
    const folder = this.root.enter(name)
    if (folder === undefined) throw new Refused("a folder of the layer is gone", Name.bytes(name))
    return folder
  }

  /** A name in the folder `name`. */
  place(name: Name.Name, segment: string): Place {
    return this.root.place(this.folder(name), segment)
  }

  /** What the folder `name` carries. */
  metadata(name: Name.Name, syscalls: Syscalls): Metadata {
    const path = `${this.folder(name).prefix}.`
    return metadataOf({ path, stats: lstatSync(path, { bigint: true }) }, syscalls)
  }

  /** Closes its handles. May be called again. */
  close(): void {
    this.root.close()
    this.implied.close()
  }
}

/** One flat text of one byte a character: what it was made of is not kept. */
const markOf = (path: Name.Name, opaque: boolean): string => {
  const depth = (path === "" ? 0 : path.split("/").length) + (opaque ? 1 : 0)
  return Buffer.from(`${String.fromCharCode(depth >> 8, depth & 0xff)}${opaque ? "o" : "w"}${path}`, "latin1").toString("latin1")
}
