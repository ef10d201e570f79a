import { Stream } from "effect"

/** An entry of an archive to be written. Names and links are UTF-8. */
export interface Member<E = never, R = never> {
  readonly name: string
  readonly type: "file" | "folder" | "symlink"
  readonly mode: number
  /** Whole seconds since the epoch, from 0 on. */
  readonly mtime: number
  /** What a symbolic link says. */
  readonly target?: string
  /** A file's bytes: all at once, or as many as `size` says as they come. */
  readonly contents?: Uint8Array | { readonly size: number; readonly bytes: Stream.Stream<Uint8Array, E, R> }
}

const blockSize = 512
const flags = { file: "0", folder: "5", symlink: "2" } as const

const padding = (size: number): Uint8Array => new Uint8Array((blockSize - size % blockSize) % blockSize)

/** The largest number eleven octal digits hold. */
const octalMax = 8 ** 11 - 1

const block = (flag: string, name: Buffer, target: Buffer, size: number, mode: number, mtime: number): Buffer => {
  const header = Buffer.alloc(blockSize)
  const octal = (at: number, width: number, value: number) => header.write(value.toString(8).padStart(width - 1, "0"), at, "latin1")
  name.copy(header, 0, 0, 100)
  octal(100, 8, mode)
  octal(108, 8, 0)
  octal(116, 8, 0)
  octal(124, 12, Math.min(size, octalMax))
  octal(136, 12, Math.min(mtime, octalMax))
  header.write(flag, 156, "latin1")
  target.copy(header, 157, 0, 100)
  header.write("ustar\x0000", 257, "latin1")
  header.fill(0x20, 148, 156)
  let sum = 0
  for (const byte of header) sum += byte
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1")
  return header
}

/** A PAX record, whose decimal length counts itself. */
const record = (key: string, value: string): Buffer => {
  const rest = Buffer.from(` ${key}=${value}\n`)
  let length = rest.byteLength
  while (String(length).length + rest.byteLength !== length) length = String(length).length + rest.byteLength
  return Buffer.concat([Buffer.from(String(length)), rest])
}

const sizeOf = ({ contents }: Member<unknown, unknown>): number =>
  contents === undefined ? 0 : contents instanceof Uint8Array ? contents.byteLength : contents.size

/** An entry's header blocks (POSIX ustar; what does not fit it, as PAX records). Owner and group are 0. */
export const header = (member: Member<unknown, unknown>): Uint8Array => {
  const name = Buffer.from(member.type === "folder" && !member.name.endsWith("/") ? `${member.name}/` : member.name)
  const target = Buffer.from(member.target ?? "")
  const size = sizeOf(member)
  const records = [
    ...name.byteLength > 100 ? [record("path", name.toString())] : [], ...target.byteLength > 100 ? [record("linkpath", target.toString())] : [],
    ...size > octalMax ? [record("size", String(size))] : []
  ]
  const main = block(flags[member.type], name, target, size, member.mode, member.mtime)
  if (records.length === 0) return main
  const body = Buffer.concat(records)
  return Buffer.concat([block("x", Buffer.from("PaxHeaders/entry"), Buffer.alloc(0), body.byteLength, 0o644, 0), body, padding(body.byteLength), main])
}

/** The bytes of an archive of these entries. They depend on nothing else. A file that gives more or fewer bytes than its size is a defect. */
export const stream = <E, R>(members: Iterable<Member<E, R>>): Stream.Stream<Uint8Array, E, R> =>
  Stream.concat(Stream.flatMap(Stream.fromIterable(members), (member): Stream.Stream<Uint8Array, E, R> => {
    const { contents } = member
    const begin = Stream.make(header(member))
    if (contents === undefined) return begin
    const end = Stream.make(padding(sizeOf(member)))
    const middle = contents instanceof Uint8Array ? Stream.make(contents) : exactly(contents.size, contents.bytes, member.name)
    return Stream.concat(begin, Stream.concat(middle, end))
  }), Stream.make(new Uint8Array(2 * blockSize)))

const exactly = <E, R>(size: number, bytes: Stream.Stream<Uint8Array, E, R>, name: string): Stream.Stream<Uint8Array, E, R> => Stream.suspend(() => {
  let count = 0
  const wrong = () => Stream.die(new Error(`${name} gave ${count} bytes, and its size is ${size}`))
  return Stream.concat(
    Stream.mapArray(bytes, (chunks) => {
      for (const chunk of chunks) count += chunk.byteLength
      if (count > size) throw new Error(`${name} gave ${count} bytes or more, and its size is ${size}`)
      return chunks
    }),
    Stream.suspend(() => count === size ? Stream.empty : wrong()))
})
