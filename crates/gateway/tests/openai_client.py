"""Checks a running server with OpenAI's own client: openai_client.py http://127.0.0.1:PORT/v1

Needs `pip install openai`. Every promise is a function; the first that is broken ends the script.
"""

import concurrent.futures
import json
import sys
import urllib.request

import openai

BASE_URL = sys.argv[1].rstrip("/")
client = openai.OpenAI(base_url=BASE_URL, api_key="any", max_retries=2, timeout=120)
MODELS = [model.id for model in client.models.list()]
BASE, ADAPTER = MODELS[0], MODELS[-1]
QUESTION = [{"role": "user", "content": "Where is my red kettle? My order is 40231."}]


def refused(kind, param=None, code=None, **request):
    """The error a request is refused with."""
    try:
        client.chat.completions.create(**{"model": ADAPTER, "messages": QUESTION, **request})
    except kind as error:
        assert param is None or error.param == param, (error.param, param)
        assert code is None or error.code == code, (error.code, code)
        return error
    raise AssertionError(f"not refused: {request}")


def models_can_be_listed_and_retrieved():
    assert len(MODELS) > 1, MODELS
    for name in MODELS:
        assert client.models.retrieve(name).id == name


def a_chat_is_answered():
    answer = client.chat.completions.create(model=ADAPTER, messages=QUESTION, temperature=0, max_tokens=30)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint and answer.id.startswith("chatcmpl-")
    # What was answered can be sent back as part of the conversation.
    more = QUESTION + [answer.choices[0].message, {"role": "user", "content": "Thank you."}]
    client.chat.completions.create(model=ADAPTER, messages=more, max_completion_tokens=5)


def a_stream_says_what_the_whole_says():
    for model in (BASE, ADAPTER):
        request = dict(model=model, messages=QUESTION, seed=5, temperature=0.9, max_tokens=40)
        whole = client.chat.completions.create(**request)
        stream = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **request)
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content, (text, whole.choices[0].message.content)
        assert chunks[-1].usage == whole.usage
        receipts = [chunk.receipt for chunk in chunks if getattr(chunk, "receipt", None)]
        assert len(receipts) == 1 and receipts[0]["id"].startswith("rcpt-")


def the_streaming_helper_works():
    with client.chat.completions.stream(model=ADAPTER, messages=QUESTION, temperature=0, max_tokens=20) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content


def completions_take_text_tokens_and_several_of_each():
    for prompt, choices in [("My order", 1), (["My order", "The lamp"], 2), ([9, 10, 11], 1), ([[9, 10], [11]], 2)]:
        answer = client.completions.create(model=BASE, prompt=prompt, max_tokens=6, temperature=0)
        assert len(answer.choices) == choices and answer.object == "text_completion"
        assert all(isinstance(choice.text, str) for choice in answer.choices)
    request = dict(model=BASE, prompt="My order", max_tokens=12, seed=1)
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(stream=True, **request))
    assert streamed == client.completions.create(**request).choices[0].text


def the_receipt_of_an_answer_can_be_fetched():
    raw = client.chat.completions.with_raw_response.create(model=ADAPTER, messages=QUESTION, seed=3, max_tokens=8)
    answer = raw.parse()
    assert raw.headers["x-lockstep-receipt"] == answer.receipt["id"]
    root = BASE_URL.removesuffix("/v1")
    with urllib.request.urlopen(root + answer.receipt["url"] + "?format=json") as response:
        receipt = json.load(response)
    assert receipt["claims"]["seed"] == 3 and receipt["claims"]["seed_from_client"]
    assert receipt["claims"]["output_tokens"] == answer.usage.completion_tokens == len(receipt["opening"]["output"])
    with urllib.request.urlopen(root + answer.receipt["url"]) as response:
        assert response.headers["content-type"] == "application/cbor" and response.read()


def what_is_wrong_raises_openais_errors():
    error = refused(openai.NotFoundError, param="model", code="model_not_found", model="gpt-9")
    assert ADAPTER in error.message
    refused(openai.BadRequestError, param="temperature", temperature=-1)
    refused(openai.BadRequestError, param="n", code="unsupported_parameter", n=2)
    refused(openai.BadRequestError, param="logprobs", code="unsupported_parameter", logprobs=True)
    refused(openai.BadRequestError, param="response_format", response_format={"type": "json_object"})
    refused(openai.BadRequestError, param="messages", messages=[])
    refused(openai.BadRequestError, param="colour", extra_body={"colour": "red"})
    refused(openai.BadRequestError, code="context_length_exceeded", max_tokens=10_000_000)
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    refused(openai.BadRequestError, messages=[{"role": "user", "content": [image]}])
    harmless = dict(n=1, presence_penalty=0, logit_bias={}, response_format={"type": "text"}, user="ada", store=False)
    client.chat.completions.create(model=ADAPTER, messages=QUESTION, max_tokens=2, **harmless)


def clients_at_once_get_what_they_get_alone():
    def ask(i):
        request = dict(model=MODELS[i % len(MODELS)], messages=QUESTION, seed=i, max_tokens=12)
        return client.chat.completions.create(**request).choices[0].message.content

    alone = [ask(i) for i in range(24)]
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        assert list(pool.map(ask, range(24))) == alone


for promise in [
    models_can_be_listed_and_retrieved,
    a_chat_is_answered,
    a_stream_says_what_the_whole_says,
    the_streaming_helper_works,
    completions_take_text_tokens_and_several_of_each,
    the_receipt_of_an_answer_can_be_fetched,
    what_is_wrong_raises_openais_errors,
    clients_at_once_get_what_they_get_alone,
]:
    promise()
    print("ok", promise.__name__)
