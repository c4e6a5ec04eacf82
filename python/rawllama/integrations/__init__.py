"""An `Embedder` as other libraries want it, a file each.

- `langchain`: `RawllamaEmbeddings`
- `llamaindex`: `RawllamaEmbedding`
- `chroma`: `RawllamaEmbeddingFunction`
- `haystack`: `RawllamaTextEmbedder`, `RawllamaDocumentEmbedder`
- `mteb`: `RawllamaEncoder`

Each takes an `Embedder`, which stays the caller's, or what makes one: a model and keywords of `Embedder`. Queries go
through `encode_query`, documents through `encode_document`. Importing this package imports none of the libraries.
"""
