import type { GoValue } from "./GoJson.ts"

/** A value is of another type than its field. */
export interface Mismatch {
  readonly field: string
  readonly reason: string
}

/** A list as Go keeps one: the slots behind its end stay, and a `null` in a later list brings back what they hold. */
export interface List<A> {
  readonly slots: Array<A>
  readonly length: number
}

/** The elements of a list. */
export const elements = <A>(list: List<A> | undefined): ReadonlyArray<A> => list === undefined ? [] : list.slots.slice(0, list.length)

// As Go's encoding/json compares a key with a field's name: ASCII case and the two letters that fold into ASCII.
const fold = (key: string) => key.replaceAll("\u212a", "k").replaceAll("\u017f", "s").replace(/[A-Z]/g, (letter) => letter.toLowerCase())

/** Reads one member of an object into `target`. */
export type Read<T> = (target: T, value: GoValue, field: string, decode: GoDecode) => void

/** The members a struct knows, by their folded names. */
export type Fields<T> = ReadonlyMap<string, { readonly name: string; readonly read: Read<T> }>

/** The known members of a struct and what to do with each; make it once. */
export const fields = <T>(members: ReadonlyArray<readonly [name: string, read: Read<T>]>): Fields<T> =>
  new Map(members.map(([name, read]) => [fold(name), { name, read }]))

/**
 * Reads values into typed fields by the rules of Go's encoding/json: keys match whatever their case, later ones overwrite
 * or merge, `null` leaves a plain field as it was. A value of a wrong type is noted (the first one only) and reading goes on.
 */
export class GoDecode {
  mismatch: Mismatch | undefined

  /** An object's known members, into `target`, which is returned; `null` does nothing. */
  struct<T>(value: GoValue, field: string, known: Fields<T>, target: T): T {
    if (!this.expect(value, field, "object")) return target
    for (const [key, member] of value.members()) {
      const found = known.get(fold(key))
      found?.read(target, member, field === "" ? found.name : `${field}.${found.name}`, this)
    }
    return target
  }

  string(value: GoValue, field: string, before: string): string {
    return this.expect(value, field, "string") ? value.string : before
  }

  boolean(value: GoValue, field: string, before: boolean): boolean {
    return this.expect(value, field, "bool") ? value.source === "true" : before
  }

  /** A number written as an integer of 64 bits with sign. */
  int64(value: GoValue, field: string, before: bigint): bigint {
    if (!this.expect(value, field, "number")) return before
    const text = value.source
    // 64 bits have at most 19 digits; BigInt of more takes a time that grows with the square.
    const integer = /^-?[0-9]{1,19}$/.test(text) ? BigInt(text) : undefined
    if (integer !== undefined && BigInt.asIntN(64, integer) === integer) return integer
    this.refuse(field, `expected an integer of 64 bits, found ${text.slice(0, 40)}`)
    return before
  }

  /** A list; `null` is none. `read` gets what the slot held before. */
  list<A>(value: GoValue, field: string, before: List<A> | undefined, read: (item: GoValue, field: string, before: A | undefined) => A): List<A> | undefined {
    if (value.kind === "null") return undefined
    if (!this.expect(value, field, "array")) return before
    const slots = before?.slots ?? []
    let length = 0
    for (const item of value.items()) {
      slots[length] = read(item, `${field}[${length}]`, slots[length])
      length++
    }
    return length === 0 ? { slots: [], length } : { slots, length }
  }

  strings(value: GoValue, field: string, before: List<string> | undefined): List<string> | undefined {
    return this.list(value, field, before, (item, name, slot) => this.string(item, name, slot ?? ""))
  }

  /** A map; `null` is none. Members are added to `before` itself. */
  map<A>(value: GoValue, field: string, before: Map<string, A> | undefined, read: (member: GoValue, field: string) => A): Map<string, A> | undefined {
    if (value.kind === "null") return undefined
    if (!this.expect(value, field, "object")) return before
    const map = before ?? new Map<string, A>()
    for (const [key, member] of value.members()) map.set(key, read(member, `${field}.${key}`))
    return map
  }

  /** Notes a value that does not fit; only the first counts. */
  refuse(field: string, reason: string): void {
    this.mismatch ??= { field, reason }
  }

  private expect(value: GoValue, field: string, kind: GoValue["kind"]): boolean {
    if (value.kind === kind) return true
    if (value.kind !== "null") this.refuse(field, `expected ${kind}, found ${value.kind}`)
    return false
  }
}
