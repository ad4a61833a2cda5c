"""qwen3-codegen: compiles language-model specs into InfiniCore engines."""
