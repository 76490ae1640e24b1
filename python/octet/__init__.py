"""octet: serves large language models in 8 bits.

    from octet import LLM, SamplingParams

    llm = LLM("path/or/hub-name", quantization="fp8")
    print(llm.generate("Hello, my name is")[0].outputs[0].text)

Needs neither numpy, torch nor transformers.
"""

from ._octet import OctetError, __version__
from .async_llm import AsyncEngineArgs, AsyncLLM, AsyncLLMEngine
from .llm import LLM
from .outputs import CompletionOutput, EmbeddingOutput, EmbeddingRequestOutput, Logprob, RequestMetrics, RequestOutput
from .pooling_params import PoolingParams
from .quantize import quantize
from .sampling_params import RequestOutputKind, SamplingParams
from .structured_outputs import GuidedDecodingParams, StructuredOutputsParams
from .tokenizer import Tokenizer

__all__ = [
    "AsyncEngineArgs",
    "AsyncLLM",
    "AsyncLLMEngine",
    "LLM",
    "CompletionOutput",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "GuidedDecodingParams",
    "Logprob",
    "OctetError",
    "PoolingParams",
    "RequestMetrics",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "StructuredOutputsParams",
    "Tokenizer",
    "__version__",
    "quantize",
]
