"""How translation models are told which languages they read and write."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from lmwright.core.errors import RequestError, suggestion

# fairseq's codes in the order of their ids.   facebook/mbart-large-cc25, mbart-large-50
MBART_LANGUAGES = (
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN",
    "it_IT", "ja_XX", "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO",
    "ru_RU", "si_LK", "tr_TR", "vi_VN", "zh_CN",
)  # fmt: skip
MBART50_LANGUAGES = (
    *MBART_LANGUAGES,
    "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK",
    "ml_IN", "mn_MN", "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN",
    "th_TH", "tl_XX", "uk_UA", "ur_PK", "xh_ZA", "gl_ES", "sl_SI",
)  # fmt: skip

# Where a language's code stands.
#   behind   mBART: text </s> code, on both sides
#   before   mBART-50: code text </s>, on both sides
#   marker   Marian: >>target<< text </s> on the source side, text </s> on the target side
CodePlace = Literal["behind", "before", "marker"]


@dataclass(frozen=True)
class Translation:
    """The languages of a translation model; codes are empty where it knows just one pair."""

    layout: CodePlace
    codes: Mapping[str, int]
    source_lang: str | None = None
    target_lang: str | None = None
    # Marian cuts its two languages by two files: a text to the pieces of either.
    source_pieces: Callable[[str], list[str]] | None = None
    target_pieces: Callable[[str], list[str]] | None = None

    def language_id(self, code: str) -> int:
        """Return the token of a language, "de_DE" or (Marian) "deu"."""
        if code not in self.codes:
            hint = suggestion(code, self.codes)
            raise RequestError(f"language {code!r} is not one of this model's{hint}")
        return self.codes[code]

    def between(self, source: str | None, target: str | None) -> "Translation":
        """Return the same with other languages; None leaves one as it is."""
        sides = (("source", source, self.source_lang), ("target", target, self.target_lang))
        for side, given, known in sides:
            if given is None:
                continue
            has_codes = self.codes and (self.layout != "marker" or side == "target")
            if has_codes:
                self.language_id(given)
            elif given != known:
                raise RequestError(
                    f"{side}_lang = {given!r}: this model's {side} language is fixed"
                    f"{f', {known!r}' if known else '; leave it out'}"
                )
        return replace(
            self,
            source_lang=source if source is not None else self.source_lang,
            target_lang=target if target is not None else self.target_lang,
        )

    def whole(self, ids: list[int], eos_id: int, *, side: Literal["source", "target"]) -> list[int]:
        """Return what the encoder reads (source) or the decoder is to write, with code and EOS."""
        if self.layout == "marker":
            return [*ids, eos_id]
        code = self.source_lang if side == "source" else self.target_lang
        if code is None:
            raise RequestError(
                f"this model needs the {side}_lang of a text; known: "
                f"{', '.join(sorted(self.codes))}"
            )
        id_ = self.language_id(code)
        return [*ids, eos_id, id_] if self.layout == "behind" else [id_, *ids, eos_id]

    def split_marker(self, text: str) -> tuple[list[int], str]:
        """Take a leading >>deu<< off a text, as its token; without one, the target language's."""
        if self.layout != "marker" or not self.codes:
            return [], text
        if text.startswith(">>") and "<<" in text:
            code, _, rest = text[2:].partition("<<")
            return [self.language_id(code)], rest
        if self.target_lang is not None and self.target_lang in self.codes:
            return [self.codes[self.target_lang]], text
        raise RequestError(
            "this model translates into several languages: begin the text with one, "
            f">>{min(self.codes)}<<, or name it; known: {', '.join(sorted(self.codes))}"
        )

    def settings(self) -> dict[str, str]:
        """Return the lines of tokenizer_config.json that name the languages."""
        names = (
            ("source_lang", "target_lang") if self.layout == "marker" else ("src_lang", "tgt_lang")
        )
        languages = zip(names, (self.source_lang, self.target_lang), strict=True)
        return {name: code for name, code in languages if code is not None}
