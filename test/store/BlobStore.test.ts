import { MemoryStore } from "../../src/testing/index.ts"
import { contract } from "./BlobStore.contract.ts"
import { storeInTemp } from "./Fixtures.ts"

contract("BlobStore", storeInTemp)
contract("BlobStore in memory", MemoryStore.layer)
