import { lstatSync } from "node:fs"
import { tmpdir } from "node:os"
import type { Metadata } from "../apply/Attributes.ts"
import { metadataOf } from "./Copy.ts"
import { Refused } from "../Fault.ts"
import * as Meta from "../apply/Meta.ts"
import { type Form, Sorted } from "../table/Sorted.ts"
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

/** Something hidden, and its place among the others: how deep the marker file was, then the journal's order. */
const markForm: Form<Hidden & { readonly place: string }> = {
  key: ({ place }) => place,
  text: ({ opaque, path, place }) => `${place}${opaque ? "o" : "w"}${path}`,
  of: (text) => ({ place: text.slice(0, 17), opaque: text[17] === "o", path: text.slice(18) })
}

/** An unpacked layer to take from: its files and the records beside them (`Meta.ts`). Nothing of it is changed here. */
export class LayerSource {
  readonly root: Root
  readonly move: boolean
  private readonly meta: string
  private readonly room = new Room(tmpdir(), 8 * 2 ** 20)
  private readonly implied = new Table<1>(this.room)
  private readonly linked = new Table<readonly [path: Name.Name, target: Name.Name]>(this.room)
  private readonly marks = new Sorted(this.room, markForm)
  private marked = 0

  /** `move`: it may be taken apart. */
  constructor(folder: string, options: { readonly move: boolean }) {
    this.meta = `${folder}/meta`
    this.move = options.move
    this.root = new Root(`${folder}/fs`, { capacity: 64 })
    try {
      for (const record of Meta.read(this.meta)) {
        if (record.t === "whiteout" || record.t === "opaque") this.mark(record.path, record.t === "opaque")
        else if (record.t === "implied") this.implied.set(record.path, 1)
        else if (record.t === "link") this.linked.set(String(this.linked.size), [record.path, record.target], 100 + record.path.length + record.target.length)
      }
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** What of the layers below is hidden, from the root down: what a folder takes along, nothing in it leads to any more. */
  hidden(): Generator<Hidden, void> { return this.marks.all() }

  /** The hard links to what is in a layer below. */
  *links(): Generator<LinkRecord> {
    for (const [, [path, target]] of this.linked.entries()) yield { path, target }
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
    this.linked.close()
    this.marks.close()
  }

  private mark(path: Name.Name, opaque: boolean): void {
    const depth = (path === "" ? 0 : path.split("/").length) + (opaque ? 1 : 0)
    this.marks.add({ path, opaque, place: `${String(depth).padStart(5)}${String(this.marked++).padStart(12)}` }, path.length + 100)
  }
}
