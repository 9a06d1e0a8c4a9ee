"""Every request that tinkex can send, held against the request classes of official SDKs, which servers reuse."""
