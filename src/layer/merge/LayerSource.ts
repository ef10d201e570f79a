import { lstatSync } from "node:fs"
import { tmpdir } from "node:os"
import type { Metadata } from "../apply/Attributes.ts"
import { metadataOf } from "./Copy.ts"
import { Refused } from "../Fault.ts"
import * as Meta from "../apply/Meta.ts"
import { Sorted } from "../table/Sorted.ts"
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
  private readonly meta: string
  private readonly implied: Table<1>
  /** What is hidden: how deep the marker file was (two bytes), its number in the journal (four), a letter, and the name. */
  private readonly marks: Sorted

  /** `move`: it may be taken apart. `room`: for what the journal says; by default its own, which may be beside a store that is only read. */
  constructor(folder: string, options: { readonly move: boolean; readonly room?: Room }) {
    const { move, room = new Room(tmpdir(), 8 * 2 ** 20) } = options
    this.meta = `${folder}/meta`
    this.move = move
    this.implied = new Table(room)
    this.marks = new Sorted(room)
    this.root = new Root(`${folder}/fs`, { capacity: 64 })
    try {
      let number = 0
      for (const record of Meta.read(this.meta)) {
        if (record.t === "whiteout" || record.t === "opaque") this.marks.add(markOf(record.path, record.t === "opaque", number++))
        else if (record.t === "implied") this.implied.set(record.path, 1)
      }
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** What of the layers below is hidden, from the root down: what a folder takes along, nothing in it leads to any more. */
  *hidden(): Generator<Hidden> {
    for (const mark of this.marks.all()) yield { path: mark.slice(7), opaque: mark[6] === "o" }
  }

  /** Its hard links whose target is in a layer below, read anew: there may be millions. */
  *links(): Generator<LinkRecord> {
    for (const record of Meta.read(this.meta)) if (record.t === "link") yield record
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
    this.marks.close()
  }
}

const markOf = (path: Name.Name, opaque: boolean, number: number): string => {
  const depth = (path === "" ? 0 : path.split("/").length) + (opaque ? 1 : 0)
  return `${String.fromCharCode(depth >> 8, depth & 0xff, number >>> 24, (number >> 16) & 0xff, (number >> 8) & 0xff, number & 0xff)}${opaque ? "o" : "w"}${path}`
}
