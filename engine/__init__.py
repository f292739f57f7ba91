"""The engine: sound in, emotion out, live. Start with `records`, then `pipeline`; programs that embed it want `api`."""
