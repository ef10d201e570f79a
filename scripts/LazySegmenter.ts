// Stands for Intl.Segmenter in the commands' bundles: effect's CLI makes one for prompts as it is loaded, which takes 25 ms.
const { Segmenter } = Intl

export class LazySegmenter {
  private made: Intl.Segmenter | undefined
  private readonly args: ConstructorParameters<typeof Segmenter>

  constructor(...args: ConstructorParameters<typeof Segmenter>) { this.args = args }

  segment(text: string): Intl.Segments { return (this.made ??= new Segmenter(...this.args)).segment(text) }
}
