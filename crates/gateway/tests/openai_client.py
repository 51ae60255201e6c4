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
    refused(openai.BadRequestError, param="n", n=0)
    refused(openai.BadRequestError, param="top_logprobs", top_logprobs=3)
    refused(openai.BadRequestError, param="response_format.type", response_format={"type": "yaml"})
    refused(openai.BadRequestError, param="logit_bias", logit_bias={"3": 101})
    refused(openai.BadRequestError, param="tool_choice", tool_choice="required")
    refused(openai.BadRequestError, param="presence_penalty", presence_penalty=3)
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "strin"}}}
    refused(openai.BadRequestError, param="response_format", code="invalid_form", response_format=schema)
    refused(openai.BadRequestError, param="messages", messages=[])
    refused(openai.BadRequestError, param="colour", extra_body={"colour": "red"})
    refused(openai.BadRequestError, code="context_length_exceeded", max_tokens=10_000_000)
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    refused(openai.BadRequestError, messages=[{"role": "user", "content": [image]}])
    harmless = dict(n=1, presence_penalty=0, logit_bias={}, response_format={"type": "text"}, user="ada", store=False)
    client.chat.completions.create(model=ADAPTER, messages=QUESTION, max_tokens=2, **harmless)


def several_answers_penalties_and_biases_work():
    request = dict(model=ADAPTER, messages=QUESTION, seed=7, max_tokens=10)
    answer = client.chat.completions.create(n=3, temperature=1.2, **request)
    assert [choice.index for choice in answer.choices] == [0, 1, 2] and len({c.receipt["id"] for c in answer.choices}) == 3
    forced = client.chat.completions.create(logit_bias={"300": 100}, presence_penalty=-1, frequency_penalty=0.5, **request)
    assert forced.usage.completion_tokens > 0
    longer = client.chat.completions.create(extra_body={"min_tokens": 10, "repetition_penalty": 1.1}, **request)
    assert longer.usage.completion_tokens == 10


def likelihoods_are_told():
    request = dict(model=ADAPTER, messages=QUESTION, seed=7, max_tokens=6, logprobs=True, top_logprobs=3)
    whole = client.chat.completions.create(**request).choices[0].logprobs.content
    assert 0 < len(whole) <= 6 and all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in whole)
    stream = client.chat.completions.create(stream=True, **request)
    told = [token for chunk in stream if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert [(token.token, token.logprob) for token in told] == [(token.token, token.logprob) for token in whole]
    answer = client.completions.create(model=BASE, prompt="My order", max_tokens=4, logprobs=2)
    old, count = answer.choices[0].logprobs, answer.usage.completion_tokens
    assert len(old.tokens) == len(old.token_logprobs) == len(old.top_logprobs) == len(old.text_offset) == count


def answers_keep_to_a_schema():
    schema = {
        "type": "object", "additionalProperties": False, "required": ["kind", "orders"],
        "properties": {
            "kind": {"enum": ["complaint", "question"]},
            "orders": {"type": "array", "maxItems": 2, "items": {"type": "integer", "minimum": 0, "maximum": 99999}},
        },
    }
    form = {"type": "json_schema", "json_schema": {"name": "order", "strict": True, "schema": schema}}
    for seed in range(5):
        answer = client.chat.completions.create(
            model=ADAPTER, messages=QUESTION, seed=seed, temperature=1.5, max_tokens=80, response_format=form)
        assert answer.choices[0].finish_reason == "stop"
        value = json.loads(answer.choices[0].message.content)
        assert value["kind"] in ("complaint", "question") and all(0 <= order <= 99999 for order in value["orders"])


TOOLS = [{"type": "function", "function": {"name": "find_order", "description": "Looks an order up.", "parameters": {
    "type": "object", "additionalProperties": False, "required": ["number"],
    "properties": {"number": {"type": "integer", "minimum": 0, "maximum": 99999}}}}}]


def tools_are_called_and_their_results_answered():
    request = dict(model=ADAPTER, messages=QUESTION, tools=TOOLS, seed=3, max_tokens=120)
    answer = client.chat.completions.create(tool_choice="required", parallel_tool_calls=False, **request).choices[0]
    (call,) = answer.message.tool_calls
    assert answer.finish_reason == "tool_calls" and call.function.name == "find_order" and call.id
    assert 0 <= json.loads(call.function.arguments)["number"] <= 99999
    named = {"type": "function", "function": {"name": "find_order"}}
    with client.chat.completions.stream(tool_choice=named, **request) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion().choices[0].message
    assert json.loads(final.tool_calls[0].function.arguments)["number"] >= 0
    more = QUESTION + [answer.message, {"role": "tool", "tool_call_id": call.id, "content": "It was sent on Monday."}]
    for choice in ("auto", "none"):
        reply = client.chat.completions.create(model=ADAPTER, messages=more, tools=TOOLS, tool_choice=choice, max_tokens=8)
        assert reply.choices[0].message.role == "assistant"


def it_tells_prometheus_what_it_measures():
    with urllib.request.urlopen(BASE_URL.removesuffix("/v1") + "/metrics") as response:
        text = response.read().decode()
    for name in ("vllm:num_requests_running", "vllm:time_to_first_token_seconds_bucket", "vllm:generation_tokens_total"):
        assert f"\n{name}{{" in text, name


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
    several_answers_penalties_and_biases_work,
    likelihoods_are_told,
    answers_keep_to_a_schema,
    tools_are_called_and_their_results_answered,
    it_tells_prometheus_what_it_measures,
    clients_at_once_get_what_they_get_alone,
]:
    promise()
    print("ok", promise.__name__)
