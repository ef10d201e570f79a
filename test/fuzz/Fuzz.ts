import { Buffer } from "node:buffer"

/** What is fuzzed: good input to begin with, and what must hold for any input. */
export interface Target {
  readonly corpus: ReadonlyArray<Buffer>
  /** Bytes that mean something to it, put in anywhere. */
  readonly words: ReadonlyArray<Uint8Array>
  /** Makes a mutant look sound again where that lets it get further, as by a new checksum. */
  readonly mend: (input: Buffer) => Buffer
  /** Whether the input was refused; a problem is thrown. */
  readonly run: (input: Buffer, random: Random) => boolean | Promise<boolean>
  readonly close: () => void
}

/** An input and what went wrong with it. */
export interface Find {
  readonly input: Buffer
  readonly problem: string
}

/** Numbers that are the same for the same seed (mulberry32). */
export class Random {
  private state: number

  constructor(seed: number) {
    this.state = seed | 0
  }

  /** 0 to `below` - 1. */
  int(below: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }

  /** One of a list. */
  of<A>(list: ReadonlyArray<A>): A {
    const one = list[this.int(list.length)]
    if (one === undefined) throw new Error("an empty list")
    return one
  }
}

const limit = 1 << 17
const numbers = ["0", "1", "-1", "255", "4294967295", "9007199254740991", "9007199254740992", "99999999999999999999", "0x10", "1e9"].map((text) => Buffer.from(text))

/** Mutates, runs, and keeps what went wrong; everything follows from the seed. */
export class Fuzz {
  executions = 0
  refused = 0
  readonly finds: Array<Find> = []
  private readonly target: Target
  private readonly random: Random

  constructor(target: Target, seed: number) {
    this.target = target
    this.random = new Random(seed)
  }

  /** One input. */
  async turn(): Promise<void> {
    const input = this.mutant()
    this.executions++
    try {
      if (await this.target.run(input, this.random)) this.refused++
    } catch (error) {
      if (this.finds.length < 50) this.finds.push({ input, problem: error instanceof Error ? `${error.message}\n${error.stack ?? ""}` : String(error) })
    }
  }

  private mutant(): Buffer {
    const { random, target } = this
    let input: Buffer = Buffer.from(random.of(target.corpus))
    for (let times = 1 + random.int(6); times > 0; times--) input = this.mutate(input)
    if (input.byteLength > limit) input = input.subarray(0, limit)
    return random.int(4) > 0 ? target.mend(input) : input
  }

  private mutate(input: Buffer): Buffer {
    const { random, target } = this
    const at = random.int(input.byteLength + 1)
    const block = Math.floor(at / 512) * 512
    const put = (bytes: Uint8Array, where: number) => {
      const copy = Buffer.from(input)
      copy.set(bytes.subarray(0, Math.max(0, copy.byteLength - where)), Math.min(where, copy.byteLength))
      return copy
    }
    const insert = (bytes: Uint8Array, where: number, skip = 0) => Buffer.concat([input.subarray(0, where), bytes, input.subarray(where + skip)])
    const other = random.of(target.corpus)
    switch (random.int(11)) {
      case 0: return put(Uint8Array.of((input[at] ?? 0) ^ (1 << random.int(8))), at)
      case 1: return put(Uint8Array.of(random.int(256)), at)
      case 2: return input.subarray(0, at)
      case 3: return insert(new Uint8Array(0), block, 512)
      case 4: return insert(input.subarray(block, block + 512), block)
      case 5: return insert(other.subarray(0, random.int(8) * 512), block)
      case 6: return put(random.of(target.words), at)
      case 7: return insert(random.of(target.words), at, random.int(2) * 8)
      case 8: return put(random.of(numbers), at)
      case 9: return Buffer.concat([input, other])
      default: return put(random.of(target.words), block + random.of([0, 100, 108, 116, 124, 136, 156, 157, 257, 329, 345, 386, 482, 483]))
    }
  }
}
