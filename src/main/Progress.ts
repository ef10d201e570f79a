import { Effect, Stream } from "effect"
import * as Docker19 from "../progress/docker/Docker19.ts"
import * as Today from "../progress/docker/Today.ts"
import * as Lines from "../progress/Lines.ts"
import type { PullEvent } from "../progress/PullEvent.ts"
import * as Terminal from "../progress/Terminal.ts"

/** `auto` is `tty` on a terminal and `plain` elsewhere. */
export type Kind = "auto" | "tty" | "plain" | "json" | "docker-1.9" | "events" | "quiet"

const write = (text: string): Effect.Effect<void> => Effect.sync(() => { process.stderr.write(text) })

const screen: Terminal.Screen = {
  write,
  size: () => ({ columns: process.stderr.columns ?? 0, rows: process.stderr.rows ?? 0 })
}

/** Whether all of it is for a program to read, the failure of a pull included: no sentence may follow. */
export const isStream = (kind: Kind): boolean => kind === "json" || kind === "docker-1.9" || kind === "events"

/** Shows the events on stderr until they end. */
export const show = (kind: Kind, events: Stream.Stream<PullEvent>): Effect.Effect<void> => {
  const lines = (text: Stream.Stream<string>) => Stream.runForEach(text, (line) => write(`${line}\n`))
  switch (kind === "auto" ? process.stderr.isTTY ? "tty" : "plain" : kind) {
    case "tty": return Terminal.render(events, screen)
    case "plain": return lines(Lines.plain(events))
    case "json": return Stream.runForEach(Today.render(events), write)
    case "docker-1.9": return Stream.runForEach(Docker19.render(events), write)
    case "events": return lines(Lines.events(events))
    // Warnings are for people who asked for nothing else, too.
    case "quiet": return lines(Stream.flatMap(events, (event) => event._tag === "warning" ? Stream.make(`warning: ${event.message}`) : Stream.empty))
  }
}
