/**
 * The shared words between the thread that receives a layer and the worker that unpacks it: how far the file may be
 * read, whether to stop, and how far the worker is. One control per job, so a job of an older generation can neither see
 * nor answer for a newer one.
 */
export class Control {
  readonly buffer: SharedArrayBuffer
  private readonly words: Int32Array
  private readonly counts: BigInt64Array

  /** A new control, or a view of the one another thread made. */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(32)) {
    this.buffer = buffer
    this.words = new Int32Array(buffer, 0, 2)
    this.counts = new BigInt64Array(buffer, 16, 2)
  }

  /** Says that the first `bytes` of the file may be read, and wakes the worker. */
  advance(bytes: number): void {
    Atomics.store(this.counts, 0, BigInt(bytes))
    this.wake()
  }

  /** Asks the worker to stop; it looks at every entry and every 256 KiB. */
  stop(): void {
    Atomics.store(this.words, 0, 1)
    this.wake()
  }

  /** Whether the job was asked to stop. */
  get stopped(): boolean {
    return Atomics.load(this.words, 0) === 1
  }

  /** Bytes of the file the worker has taken. */
  get consumed(): number {
    return Number(Atomics.load(this.counts, 1))
  }

  /** Tells how many bytes were taken (worker side). */
  consume(bytes: number): void {
    Atomics.store(this.counts, 1, BigInt(bytes))
  }

  /** Blocks the worker until more than `at` bytes may be read and returns how many; returns at once when stopped. */
  waitBeyond(at: number): number {
    for (;;) {
      const turn = Atomics.load(this.words, 1)
      const available = Number(Atomics.load(this.counts, 0))
      if (available > at || this.stopped) return available
      Atomics.wait(this.words, 1, turn)
    }
  }

  private wake(): void {
    Atomics.add(this.words, 1, 1)
    Atomics.notify(this.words, 1)
  }
}

/** Thrown inside a worker's job when it was asked to stop. */
export class Stopped extends Error {}

/**
 * Keeps a thread from being ended while it loads native calls: an addon that is cut off while it sets itself up aborts the
 * whole process. Made by the thread that ends the other, and shared with it.
 */
export class Gate {
  readonly buffer: SharedArrayBuffer
  private readonly word: Int32Array

  /** A new gate, or a view of the one another thread made. */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(4)) {
    this.buffer = buffer
    this.word = new Int32Array(buffer)
  }

  /** Runs `load`, during which `shut` is refused; throws `Stopped` when the gate is shut. */
  through<A>(load: () => A): A {
    if (Atomics.compareExchange(this.word, 0, 0, 1) !== 0) throw new Stopped()
    try {
      return load()
    } finally {
      Atomics.store(this.word, 0, 0)
    }
  }

  /** Shuts it for good; false, and nothing happens, while the other thread is inside. */
  shut(): boolean {
    return Atomics.compareExchange(this.word, 0, 0, 2) !== 1
  }
}

/** Windows and dictionaries up to so many bytes count for nothing: 8 MiB. */
const small = 8 * 2 ** 20

/**
 * Memory for the large windows that all threads of a pool share: who needs one waits until the others have left enough, so that
 * several large ones at once do not add up. Made by the pool, and shared with its threads, each of which has a share of its own:
 * what a thread held when it was ended is given back by whoever ended it.
 */
export class Budget {
  readonly buffer: SharedArrayBuffer
  /** What this share holds. */
  readonly share: SharedArrayBuffer
  /** MiB that are free, and that this share holds. */
  private readonly free: Int32Array
  private readonly held: Int32Array

  /** A new one of so many bytes, or a view of one that another thread made; a new share of it, or a view of that. */
  constructor(from: SharedArrayBuffer | number, share: SharedArrayBuffer = new SharedArrayBuffer(4)) {
    this.buffer = typeof from === "number" ? new SharedArrayBuffer(4) : from
    this.share = share
    this.free = new Int32Array(this.buffer)
    this.held = new Int32Array(share)
    if (typeof from === "number") this.free[0] = Math.floor(from / 2 ** 20)
  }

  /** Gives back what this share has, and waits for so many bytes; `stop` is called meanwhile, and what it throws ends the wait. */
  hold(bytes: number, stop: () => void = () => {}): void {
    const had = Atomics.exchange(this.held, 0, 0)
    if (had > 0) {
      Atomics.add(this.free, 0, had)
      Atomics.notify(this.free, 0)
    }
    const wanted = bytes <= small ? 0 : Math.ceil(bytes / 2 ** 20)
    while (Atomics.load(this.held, 0) < wanted) {
      stop()
      const free = Atomics.load(this.free, 0)
      if (free < wanted) Atomics.wait(this.free, 0, free, 100)
      else if (Atomics.compareExchange(this.free, 0, free, free - wanted) === free) Atomics.store(this.held, 0, wanted)
    }
  }
}
