"""Sampling: parameters of a request, and samplers that honour them row by row."""

from qwen3_runtime.sampling.params import MAX_LOGPROBS, SamplingParams
from qwen3_runtime.sampling.sampler import Draw, Sampler, TokenLogprobs, sampler_for

__all__ = ["MAX_LOGPROBS", "Draw", "Sampler", "SamplingParams", "TokenLogprobs", "sampler_for"]
