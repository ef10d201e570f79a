/** What LZMA's bits are coded with: a range, a code in it, and what is known of how likely each bit is (11 bits, of a 0). */
export class RangeCoder {
  readonly probs: Uint16Array
  /** Range, code, and how much of the input was taken: where bits are decoded in line, they are taken from here and put back. */
  readonly registers = new Int32Array(3)
  input: Uint8Array = new Uint8Array(0)

  /** `models`: how many probabilities there are. */
  constructor(models: number) {
    this.probs = new Uint16Array(models)
  }

  /** Forgets what the probabilities have learned. */
  forget(): void {
    this.probs.fill(1024)
  }

  /** Takes a chunk of input; false if it cannot be one. */
  begin(input: Uint8Array): boolean {
    const [first, a = 0, b = 0, c = 0, d = 0] = input
    if (input.byteLength < 5 || first !== 0) return false
    this.input = input
    this.registers.set([-1, (a << 24) | (b << 16) | (c << 8) | d, 5])
    return true
  }

  /** Whether the input ends here, as it should. */
  isAtEnd(): boolean {
    this.normalize()
    return this.registers[1] === 0 && this.registers[2] === this.input.byteLength
  }

  /** A number of so many bits, the highest first, by the model of `1 << bits` probabilities at `at`. */
  tree(at: number, bits: number): number {
    let symbol = 1
    for (let n = 0; n < bits; n++) symbol = (symbol << 1) | this.bit(at + symbol)
    return symbol - (1 << bits)
  }

  /** The same, the lowest bit first. */
  reverse(at: number, bits: number): number {
    let symbol = 1
    let value = 0
    for (let n = 0; n < bits; n++) {
      const bit = this.bit(at + symbol)
      symbol = (symbol << 1) | bit
      value |= bit << n
    }
    return value
  }

  /** A number of so many bits that no model tells. */
  direct(bits: number): number {
    const { registers } = this
    let value = 0
    for (let n = 0; n < bits; n++) {
      this.normalize()
      const range = (registers[0] ?? 0) >>> 1
      const code = (registers[1] ?? 0) >>> 0
      registers[0] = range
      if (code >= range) {
        registers[1] = code - range
        value = (value << 1) | 1
      } else value <<= 1
    }
    return value
  }

  /** One bit, by the probability at `at`. */
  bit(at: number): number {
    const { probs, registers } = this
    this.normalize()
    const range = registers[0] ?? 0
    const code = registers[1] ?? 0
    const prob = probs[at] ?? 0
    const bound = Math.imul(range >>> 11, prob)
    if (code >>> 0 < bound >>> 0) {
      registers[0] = bound
      probs[at] = prob + ((2048 - prob) >> 5)
      return 0
    }
    registers[0] = range - bound
    registers[1] = code - bound
    probs[at] = prob - (prob >> 5)
    return 1
  }

  private normalize(): void {
    const { registers } = this
    const range = registers[0] ?? 0
    if (range >>> 0 >= 0x1000000) return
    const at = registers[2] ?? 0
    registers[0] = range << 8
    registers[1] = ((registers[1] ?? 0) << 8) | (this.input[at] ?? 0)
    registers[2] = at + 1
  }
}
