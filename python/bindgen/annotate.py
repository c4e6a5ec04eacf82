"""C types as Python annotations.

Each C scalar has a tag class, so that a type checker tells `int32_t *` from `float *`. A pointer is
`Pointer[Tag, Item]`, where `Item` is what indexing gives.
"""

from __future__ import annotations

from collections.abc import Container

from .ctype import Array, Callback, CType, EnumType, Pointer, Scalar, StructType, Void

_VALUES = {"float": "float", "double": "float", "char": "bytes", "_Bool": "bool"}
_BYTES = ("char", "signed char", "unsigned char", "int8_t", "uint8_t")


class Annotator:
    """Writes annotations; typedef names in `hidden` are not used, as a function has the same name."""

    def __init__(self, hidden: Container[str]) -> None:
        self._hidden = hidden

    def result(self, kind: CType) -> str:
        """What Python gets from C: a returned value, a struct's field, an array's item."""
        match kind:
            case Void():
                return "None"
            case Scalar(name, alias):
                return alias if alias and alias not in self._hidden else python_value(name)
            case EnumType(name):
                return f"enum_{name}"
            case StructType(name):
                return f"struct_{name}"
            case Pointer(StructType(name)):
                return f"struct_{name}_p"
            case Pointer(target):
                return self._pointer(target)
            case Array(item):
                return f"Array[{self._tag(item)}, {self.result(item)}]"
            case Callback():
                return self._callback(kind)

    def argument(self, kind: CType) -> str:
        """What C takes from Python: wider than `result`, as cffi converts some objects."""
        match kind:
            case Pointer(Void(), const=True):
                return "AnyPointer | bytes"
            case Pointer(Void()):  # C may write to it, and a bytes object must not change
                return "AnyPointer"
            case Pointer(Scalar("FILE")):
                return "IO[bytes] | Pointer[c_FILE, c_FILE]"
            case Pointer(Scalar(name) as target, const=True):
                converted = "bytes" if name in _BYTES else f"list[{python_value(name)}]"
                return f"{self._pointer(target)} | {converted}"
            case Pointer(Pointer(const=True) as target):  # const char **: texts that C reads
                return f"{self._pointer(target)} | list[{self.result(target)}]"
            case Pointer(target):
                return self._pointer(target)
        return self.result(kind)

    def field(self, kind: CType) -> str:
        """A struct's field: what reading it gives, and what it is set from where that is more."""
        match kind:
            case Pointer(Void() | StructType()):
                return f"Field[{self.result(kind)}, {self.argument(Pointer(kind.target))}]"
            case Array():
                return f"Field[{self.result(kind)}, {self._values(kind)}]"
        return self.result(kind)

    def python_callable(self, callback: Callback) -> str:
        """The Python function that may stand behind a callback."""
        arguments = ", ".join(self.result(one) for one in callback.arguments)
        return f"Callable[[{arguments}], {self.result(callback.result)}]"

    def function_pointer(self, callback: Callback) -> str:
        """The type of a callback, written out."""
        arguments = ", ".join(self.argument(one) for one in callback.arguments)
        return f"FunctionPointer[[{arguments}], {self.result(callback.result)}]"

    def _callback(self, callback: Callback) -> str:
        if callback.alias and callback.alias not in self._hidden:
            return callback.alias
        return self.function_pointer(callback)

    def _values(self, kind: CType) -> str:
        """What an array, or an array of arrays, is set from."""
        match kind:
            case Array(Scalar("char")):
                return f"{self.result(kind)} | list[bytes] | bytes"
            case Array(item):
                return f"{self.result(kind)} | list[{self._values(item)}]"
        return self.result(kind)

    def _pointer(self, target: CType) -> str:
        return "VoidPointer" if isinstance(target, Void) else f"Pointer[{self._tag(target)}, {self.result(target)}]"

    def _tag(self, kind: CType) -> str:
        match kind:
            case Scalar(name):
                return scalar_tag(name)
            case EnumType():
                return "c_enum"
        return self.result(kind)


def scalar_tag(name: str) -> str:
    """The class that stands for a C scalar, e.g. `c_unsigned_int`."""
    return "c_" + name.strip("_").lower().replace(" ", "_") if name != "FILE" else "c_FILE"


def python_value(name: str) -> str:
    """The Python type of a C scalar's values."""
    return "c_FILE" if name == "FILE" else _VALUES.get(name, "int")
