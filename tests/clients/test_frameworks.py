"""One flow each of LangChain and LiteLLM on the real SmolLM2: an answer, a stream, structured output, an error."""
import pydantic
import pytest

QUESTION = "What is the capital of France?"
OPTIONS = {"temperature": 0, "max_tokens": 24}


class City(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=16)
    inhabitants: int = pydantic.Field(ge=0, le=99999999)


@pytest.fixture
def expected(real_server):
    status, answer = real_server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}], **OPTIONS})
    assert status == 200
    return answer["choices"][0]["message"]["content"]


def test_langchain(real_server, expected):
    langchain_openai = pytest.importorskip("langchain_openai")

    def chat_of(model="smol", **options):
        return langchain_openai.ChatOpenAI(base_url=real_server.url + "/v1", api_key="none", model=model, max_retries=0, timeout=60,
                                           **{**OPTIONS, **options})

    chat = chat_of()
    answer = chat.invoke(QUESTION)
    assert answer.content == expected
    assert answer.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == expected
    city = chat_of(max_tokens=96).with_structured_output(City, method="json_schema").invoke("Tell me about Paris.")
    assert isinstance(city, City)
    with pytest.raises(Exception, match="does not exist"):
        chat_of(model="no such model").invoke(QUESTION)


def test_litellm(real_server, expected):
    litellm = pytest.importorskip("litellm")
    where = {"model": "hosted_vllm/smol", "api_base": real_server.url + "/v1", "api_key": "none", "num_retries": 0, "timeout": 60}
    messages = [{"role": "user", "content": QUESTION}]
    answer = litellm.completion(messages=messages, **where, **OPTIONS)
    assert answer.choices[0].message.content == expected
    assert answer.usage.completion_tokens > 0
    pieces = litellm.completion(messages=messages, stream=True, **where, **OPTIONS)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == expected
    with pytest.raises(litellm.exceptions.NotFoundError):
        litellm.completion(messages=messages, **{**where, "model": "hosted_vllm/other"}, **OPTIONS)
