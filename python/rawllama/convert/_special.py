"""Special tokens: their ids, and which of them libllama adds to a text by itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from ._errors import ConvertError
from ._folder import NAMED_TOKENS, Folder, Json, token_text
from ._keys import Keys

ID_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # GGUF's own spelling
    "pad": "padding_token_id",
    "mask": "mask_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
}


@dataclass
class Special:
    """Texts and ids of special tokens by kind ("bos", "sep", ...), and the kinds that are added to a text."""

    texts: dict[str, str]
    added: dict[str, bool] = field(default_factory=dict)

    def read_processor(self, processor: Json) -> None:
        """Note what one post-processor of tokenizer.json adds."""
        kind = processor.get("type")
        if kind == "ByteLevel":
            for end in ("bos", "eos"):
                self.added.setdefault(end, False)
        elif kind == "RobertaProcessing":
            self.added |= {"bos": True, "eos": True, "sep": True}
            for end, other in (("cls", "bos"), ("sep", "eos")):
                given = (processor.get(end) or [self.texts.get(other)])[0]
                if given is not None:
                    self.texts.setdefault(end, given)
        elif kind == "TemplateProcessing":
            self.read_template(processor.get("single") or [], processor.get("pair") or [])

    def read_template(self, single: list[Json], pair: list[Json]) -> None:
        """Note the tokens that a template puts before, behind and between its sequences."""
        begin = special_id(single[0]) if len(single) > 1 else None
        end = special_id(single[-1]) if len(single) > 1 else None
        if begin:
            self.begin_with(begin)
        if end:
            self.end_with(end)
        self.separate(inside(pair, begin, end), end)

    def begin_with(self, token: str) -> None:
        """The token before a text is the first of the kinds that are not named yet."""
        if token not in (self.texts.get("bos"), self.texts.get("cls")):
            self.texts.setdefault("bos", token)
            self.texts.setdefault("cls", token)
        self.added["bos"] = token in (self.texts.get("bos"), self.texts.get("cls"))

    def end_with(self, token: str) -> None:
        """The token behind a text is the end of sequence; another one so named ends a turn or a message."""
        named = self.texts.get("eos")
        if named and token != named:
            spare = next((kind for kind in ("eot", "eom") if kind not in self.texts), None)
            if spare:
                self.texts[spare] = named
        self.texts["eos"] = token
        self.added["eos"] = True

    def separate(self, middle: list[Json], end: str | None) -> None:
        """Note whether a pair has a separator of its own, besides the token that ends the first text."""
        sequences = [part.get("Sequence", {}).get("id") for part in middle]
        between = middle[1:-1]
        if sequences[:1] != ["A"] or sequences[-1:] != ["B"] or not between:
            return
        known = {self.texts.get("sep"), self.texts.get("eos")} - {None}
        tokens = [special_id(part) for part in between[:2]]
        own = [token in known for token in tokens]
        self.added["sep"] = (own[0] and not end) or (len(between) == 2 and own[1])
        if self.added["sep"] and "eos" in self.texts:
            self.texts.setdefault("sep", self.texts["eos"])


def special_id(part: Json) -> str | None:
    """The token of one part of a template, None for a sequence."""
    token = part.get("SpecialToken", {}).get("id")
    return token if isinstance(token, str) else None


def inside(pair: list[Json], begin: str | None, end: str | None) -> list[Json]:
    """A pair's template without the tokens that also stand around a single text."""
    start = 1 if pair and begin and special_id(pair[0]) == begin else 0
    stop = len(pair) - 1 if pair and end and special_id(pair[-1]) == end else len(pair)
    return pair[start:stop]


def read_special(folder: Folder) -> Special:
    """What tokenizer.json and tokenizer_config.json say about special tokens."""
    config = folder.tokenizer_config or {}
    found = {kind: token_text(config.get(f"{kind}_token")) for kind in NAMED_TOKENS}
    special = Special({kind: text for kind, text in found.items() if text})
    if folder.tokenizer is not None:
        for kind, other in (("bos", "cls"), ("eos", "sep")):
            if other in special.texts:
                special.texts.setdefault(kind, special.texts[other])
        processor = folder.tokenizer.get("post_processor") or {}
        for part in processor.get("processors", [processor]):
            special.read_processor(part)
    for kind in NAMED_TOKENS:
        flag = config.get(f"add_{kind}_token")
        if isinstance(flag, bool):
            special.added.setdefault(kind, flag)
    return special


def special_ids(folder: Folder, special: Special, size: int | None) -> dict[str, int]:
    """Ids by kind: from the tokenizer's added tokens, else from config.json; none from `size` on."""
    listed = (folder.tokenizer or {}).get("added_tokens") or []
    by_text = {token["content"]: token["id"] for token in reversed(listed)}
    # Without a tokenizer_config.json, upstream leaves the texts aside.
    texts = special.texts if folder.tokenizer_config is not None else {}
    ids: dict[str, int] = {}
    from_tokenizer = {kind: by_text.get(text) for kind, text in texts.items()}
    for source in (from_tokenizer, from_config(folder.config, special)):
        for kind, token in source.items():
            if isinstance(token, int) and (size is None or token < size):
                ids.setdefault(kind, token)
    return ids


def from_config(config: Json, special: Special) -> dict[str, int | None]:
    """Ids of special tokens in config.json.

    Raises
    ------
    ConvertError
        One of them is negative.
    """
    kinds = [*NAMED_TOKENS, *({"eot", "eom"} & special.texts.keys())]
    ids = {kind: config.get(f"{kind}_token_id") for kind in kinds}
    for kind, token in ids.items():
        if isinstance(token, int) and token < 0:
            raise ConvertError(f"folder: {kind}_token_id {token} in config.json is negative; remove it")
    return ids


def add_special_tokens(keys: Keys, folder: Folder, size: int | None = None) -> None:
    """Keys for special tokens and for the normalizer; ids from `size` on, if given, are left out."""
    special = read_special(folder)
    for kind, token in special_ids(folder, special, size).items():
        if kind in ID_KEYS:
            keys.set(f"tokenizer.ggml.{ID_KEYS[kind]}", "uint32", token)
    for kind in ("bos", "eos", "sep"):
        if kind in special.added:
            keys.set(f"tokenizer.ggml.add_{kind}_token", "bool", special.added[kind])
    add_normalizer(keys, (folder.tokenizer or {}).get("normalizer") or {})


def add_normalizer(keys: Keys, normalizer: Json) -> None:
    """Keys for lower case and for accents, from the normalizer of tokenizer.json or one inside it."""
    kind = normalizer.get("type")
    if kind == "Sequence":
        for part in normalizer.get("normalizers") or []:
            add_normalizer(keys, part)
    flags = {"Lowercase": {"lowercase": True}, "StripAccents": {"strip_accents": True}}.get(str(kind), {})
    if kind == "BertNormalizer":
        flags = {name: normalizer[name] for name in ("lowercase", "strip_accents") if name in normalizer}
    for name, value in flags.items():
        if value is not None:
            keys.set(f"tokenizer.ggml.normalizer.{name}", "bool", value)
