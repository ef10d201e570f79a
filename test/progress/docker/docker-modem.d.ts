declare module "docker-modem" {
  /** Only what the tests use. */
  class Modem {
    followProgress(stream: NodeJS.ReadableStream, onFinished: (error: unknown, output: Array<unknown>) => void, onProgress?: (event: unknown) => void): void
  }
  export default Modem
}
