import { defineConfig } from "vitest/config"

// Two workers fit two cores; tests that start servers or processes bring their own time limits. One that fails is tried once
// more, and the report says so: the suite keeps both cores busy, and some tests meet real time, signals and full disks.
export default defineConfig({
  test: { include: ["test/**/*.test.ts"], setupFiles: ["test/setup.ts"], pool: "forks", maxWorkers: 2, testTimeout: 60_000, retry: 1, hookTimeout: 60_000 }
})
