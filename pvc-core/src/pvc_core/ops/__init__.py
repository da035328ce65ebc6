"""Operations: typed functions, request to response, over the store.  The CLI, the API and Python are faces of them."""
