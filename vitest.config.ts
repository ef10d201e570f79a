import { defineConfig } from "vitest/config"

// Two workers fit two cores; tests that start servers or processes bring their own time limits.
export default defineConfig({
  test: { include: ["test/**/*.test.ts"], setupFiles: ["test/setup.ts"], pool: "forks", maxWorkers: 2, testTimeout: 60_000, hookTimeout: 60_000 }
})
