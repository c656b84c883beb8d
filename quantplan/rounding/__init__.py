"""Error-compensated rounding into the blocks of ggml: GPTQ feedback, coordinate descent, refitted scales."""
