import { contract } from "./BlobStore.contract.ts"
import { storeInTemp } from "./Fixtures.ts"

contract("BlobStore", storeInTemp)
