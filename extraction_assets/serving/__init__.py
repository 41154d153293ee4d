"""serving: the bundle, the request/response contract, the endpoint on this machine, and its client"""

BUNDLE_MANIFEST, BUNDLE_SEAL = "manifest.json", "manifest.sha256"
"""in a bundle: what it holds, and the SHA-256 of that file, which names the bundle"""

WORKER_REFUSED = 3
"""exit status of a worker whose bundle cannot be served: another one would end the same way"""
