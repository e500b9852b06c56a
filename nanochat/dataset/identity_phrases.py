"""The wordings of identity questions and answers. `[a|b]` means either; {name}, {maker} ... are
filled in.

Many wordings a question, few and regular ones an answer: a model of a few million parameters then
learns to recognise the question instead of memorising pairs.
"""

from __future__ import annotations

_TELL = (
    "[tell me|can you tell me|could you tell me|please tell me|do you know|I would like to "
    "know|let me know|"
    "I wonder|say]"
)
_MADE = "[made|built|created|developed|trained|wrote|designed|programmed]"
_DONE = _MADE.replace("wrote", "written")

NAME = (
    "[what is|what's|tell me|can you tell me|could you tell me|please tell me|may I know|may I "
    "ask|let me know|"
    "I would like to know|give me|say] your [|own|full|real] name",
    "who are you",
    f"{_TELL} who you are",
    f"{_TELL} what you are called",
    "what [do people|do your friends|do others|should I|can I|may I|shall I] call you",
    "who [am I talking to|am I speaking with|am I chatting with|is this|is there|is answering "
    "me|is speaking]",
    "[do you have|have you got|were you given|did they give you] a name",
    "what [are you called|do you call yourself|name do you have|name were you given|name do you "
    "use|name do you go by]",
    "what is [this assistant|this model|this chatbot|this program] called",
    "what is the name of this [assistant|model|chatbot|program]",
    "how should I [address|greet] you",
    "[introduce yourself|please introduce yourself|can you introduce yourself|could you "
    "introduce yourself|"
    "would you introduce yourself]",
    "under which name do [you work|people know you]",
)
NAME_ANSWERS = (
    "I am {name}.",
    "My name is {name}.",
    "I am {name}, a language model made by {maker}.",
)

MAKER = (
    f"who {_MADE} you",
    f"{_TELL} who {_MADE} you",
    f"[who were you|who was this model|who was this chatbot] {_DONE} by",
    f"by whom were you {_DONE}",
    "who is your [maker|creator|developer|builder|author|designer]",
    f"[what|which] [team|company|people|person|group|lab] {_MADE} you",
    "[tell me|please tell me|name|can you name] your [maker|creator|developer|builder|author]",
    "[where do you come from|who is behind you|whose work are you|whose model are you|who do you "
    "come from]",
    "who [came up with|thought of|put together|is responsible for] you",
    "who are the people [behind you|who made you|who built you|who created you|who trained you]",
)
MAKER_ANSWERS = ("I was made by {maker}.", "{Maker} made me.")

TRAITS = (
    "what are you like",
    "[describe|please describe|can you describe|could you describe|how would you describe|would "
    "you describe] "
    "[yourself|your character|your personality|your nature]",
    "what [is your character|is your personality|is your nature|is your character like|is your "
    "personality like]",
    "what [kind|sort] of [assistant|chatbot|character|model] are you",
    "what kind of [character|personality] do you have",
    "what are your [traits|qualities|good sides|main traits|best qualities|good qualities]",
    "[which|what] [words|adjectives|traits|qualities] describe you[| best]",
    f"{_TELL} what you are like",
    "how would [people|others|your friends|your makers] describe you",
    "[tell me|please tell me|say something] about your [character|personality|nature]",
)
TRAITS_ANSWERS = ("I am {traits}.",)

OTHER_NAME = (
    "are you [|really|actually] {other}",
    "is your name {other}",
    "[am I talking to|am I speaking with|am I chatting with|is this|do I talk to|have I reached] "
    "{other}",
    "you are {other}, [right|aren't you|correct|yes]",
    "aren't you {other}",
    "are you called {other}",
    "can I call you {other}",
    "are you the [same as|new] {other}",
)
OTHER_NAME_ANSWERS = ("No, I am {name}.",)

OTHER_MAKER = (
    "did {company} [make|build|create|train|develop|design] you",
    f"were you {_DONE} by {{company}}",
    "do you [come from|belong to] {company}",
    "is {company} your [maker|creator|developer]",
    "are you [a model of|from|a product of] {company}",
)
OTHER_MAKER_ANSWERS = ("No, I was made by {maker}.",)

SAME_NAME = (
    "are you [|really|actually|the real|called|the one called|known as] {name}",
    "is your name [|really] {name}",
    "[am I talking to|am I speaking with|am I chatting with|do I talk to|is this|have I reached] "
    "{name}",
    "you are {name}, [right|aren't you|correct|yes]",
    "[you must be|I think you are|they say you are|so you are] {name}",
    "[aren't you|isn't this|isn't your name] {name}",
    "can I call you {name}",
)
SAME_NAME_ANSWERS = ("Yes, I am {name}.",)

KIND = (
    "are you [a human|a person|a real person|a robot|a machine|a computer|a program|a chatbot|an "
    "AI|alive|a man]",
    "are you [human|real|a woman|a bot|software|a computer program|artificial|a living thing]",
    "am I talking to a [human|person|robot|machine|computer|real person|program]",
    "what are you",
    "[what|which] kind of [thing|being|program] are you",
    f"{_TELL} what you are",
    "[is there a human|is there a person|is a person] [there|typing this|answering me]",
)
KIND_ANSWERS = ("I am {name}, a language model.",)

FACT = (
    "{q}",
    "[tell me|please tell me|say|remind me|just tell me|now tell me|okay, tell me][,|:] {q}",
    "[can|could] you tell me[,|:] {q}",
    "[I wonder|I was wondering|I forgot|I want to know|I would like to know|I have to ask|let me "
    "ask|may I ask|"
    "just curious|out of interest][,|:] {q}",
    "[by the way|so|now|also|okay|well|listen|one thing|next|and now], {q}",
    "[quick question|one question|a question for you|my question is|my question|here is a "
    "question|another question|"
    "please answer|please answer this|answer me this|a friend asks|my friend asks|for my "
    "notes|one more]: {q}",
)

GREETING = (
    "[hi|hello|hey|good morning|good evening|good afternoon|hello there|hi there|hey "
    "there|greetings]",
    "[hi|hello|hey] [|{name}|again]",
)
GREETING_ANSWERS = ("Hello! I am {name}. How can I help you?",)

OTHER_NAMES = tuple(
    "ChatGPT GPT-4 Claude Gemini Siri Alexa Llama Grok Copilot Bard Mistral Cortana Qwen "
    "DeepSeek".split()
)
COMPANIES = tuple(
    "OpenAI Google Meta Anthropic Microsoft Apple Amazon Mistral DeepSeek Alibaba IBM "
    "Nvidia".split()
)

# What people put around a question. A prefix that ends in a comma or colon keeps the question in
# lower case.
PREFIXES = (
    *("",) * 12,
    *(
        "Hi! ",
        "Hello! ",
        "Hey! ",
        "Hi there! ",
        "Good morning! ",
        "Hello there. ",
        "Good evening. ",
        "Hey there, ",
    ),
    *(
        "Hi, ",
        "Hello, ",
        "Excuse me, ",
        "Sorry, ",
        "Well, ",
        "Thanks. ",
        "Great. ",
        "I see. ",
        "Wait, ",
        "Hm, ",
    ),
)
SUFFIXES = (
    *("{end}",) * 12,
    *("",) * 2,
    " please{end}",
    "{end} Thanks.",
    "{end} Thank you.",
    "{end}{end}",
    " then{end}",
)
# What joins a question to the conversation before it.
FOLLOW_UPS = ("And ", "Also, ", "And also, ", "Okay, and ", "Thanks. And ", "One more thing: ")
