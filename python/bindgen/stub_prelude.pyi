"""The C API as `ffi` and `lib`.

Behind each C type stands a class, so that a type checker tells `int32_t *` from `float *` and one struct from another.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, ParamSpec, Protocol, Self, TypeAlias, TypeVar, overload

from typing_extensions import Buffer as _PythonBuffer

_Tag = TypeVar("_Tag")
_Item = TypeVar("_Item")
_Get = TypeVar("_Get")
_Set = TypeVar("_Set")
_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")

class CData:
    """A C object. `ffi.typeof(x)` tells its C type."""

    def __bool__(self) -> bool:
        """False for a NULL pointer."""
    def __hash__(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

class AnyPointer(CData):
    """What C takes for `void *`."""

    def __lt__(self, other: AnyPointer, /) -> bool: ...
    def __le__(self, other: AnyPointer, /) -> bool: ...
    def __gt__(self, other: AnyPointer, /) -> bool: ...
    def __ge__(self, other: AnyPointer, /) -> bool: ...

class VoidPointer(AnyPointer):
    """`void *`."""

class Pointer(AnyPointer, Generic[_Tag, _Item]):
    """A C pointer: `Tag` is the C type that it points to, `Item` what indexing gives."""

    @overload
    def __getitem__(self, index: int, /) -> _Item: ...
    @overload
    def __getitem__(self, index: slice, /) -> Array[_Tag, _Item]: ...
    @overload
    def __setitem__(self, index: int, value: _Item, /) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[_Item] | bytes, /) -> None: ...
    def __add__(self, count: int, /) -> Pointer[_Tag, _Item]: ...
    @overload
    def __sub__(self, other: int, /) -> Pointer[_Tag, _Item]: ...
    @overload
    def __sub__(self, other: Pointer[_Tag, _Item], /) -> int: ...

class StructPointer(Pointer[_Item, _Item]):
    """A pointer to a struct; the struct's fields are its own, as with C's `->`."""

    def __add__(self, count: int, /) -> Self: ...
    @overload
    def __sub__(self, other: int, /) -> Self: ...
    @overload
    def __sub__(self, other: Pointer[_Item, _Item], /) -> int: ...

class Array(Pointer[_Tag, _Item]):
    """A C array: a pointer that knows its length."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_Item]: ...

class FunctionPointer(AnyPointer, Generic[_P, _R]):
    """A pointer to a C function."""

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...

class WrongCallback:
    """What `ffi.callback` gives for a function that has other arguments, or another result, than the C type."""

class Field(Generic[_Get, _Set]):
    """A struct's field that takes more than it gives: an array is set from a list, a `void *` from any pointer."""

    def __get__(self, owner: object, kind: object = None, /) -> _Get: ...
    def __set__(self, owner: object, value: _Set, /) -> None: ...

class CType:
    """A C type, as `ffi.typeof` gives it."""

    kind: str
    cname: str
    item: CType
    length: int | None
    fields: list[tuple[str, Any]]
    args: tuple[CType, ...]
    result: CType
    ellipsis: bool
    elements: dict[int, str]

class Buffer:
    """Bytes of C memory; takes part in the buffer protocol."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int | slice, /) -> bytes: ...
    def __setitem__(self, index: int | slice, value: _PythonBuffer, /) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class _NumpyArray(Protocol):
    """Before Python 3.12, numpy's own types do not say that an array has a buffer."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...

SupportsBuffer: TypeAlias = _PythonBuffer | _NumpyArray

class c_char: ...
class c_int8_t: ...
class c_uint8_t: ...

# Inside _FFI, these names are its attributes.
_CData: TypeAlias = CData
_CType: TypeAlias = CType

class _FFI:
    """cffi's FFI, as far as it is the same for all headers."""

    # Any, as C takes it for every pointer: an argument, a field, an item of an array, a variable that gets one later.
    NULL: Final[Any]
    CData: type[_CData]
    CType: type[_CType]
    error: type[Exception]
    errno: int
    RTLD_LAZY: Final[int]
    RTLD_NOW: Final[int]
    RTLD_GLOBAL: Final[int]
    RTLD_LOCAL: Final[int]

    def sizeof(self, cdecl: str | _CData | _CType, /) -> int:
        """Size in bytes of a type or an object; for a pointer, of the pointer."""
    def alignof(self, cdecl: str | _CType, /) -> int:
        """Alignment of a type in bytes."""
    def offsetof(self, cdecl: str | _CType, field: str | int, /, *fields: str | int) -> int:
        """Offset in bytes of a struct's field, or of an array's item."""
    def typeof(self, cdecl: str | _CData | Callable[..., Any], /) -> _CType:
        """Type of a C object or function of `lib`, or the type that is spelled so in C."""
    def getctype(self, cdecl: str | _CType, replace_with: str = "") -> str:
        """C spelling of a type, or of a variable named `replace_with`."""
    def integer_const(self, name: str) -> int:
        """Value of an integer constant by its name."""
    def cast(self, cdecl: str | _CType, value: Any, /) -> Any:
        """Convert as a C cast does."""
    def string(
        self, cdata: Pointer[c_char, bytes] | Pointer[c_int8_t, int] | Pointer[c_uint8_t, int], maxlen: int = -1
    ) -> bytes:
        """Copy a C string up to its NUL, or `maxlen` bytes at most."""
    @overload
    def unpack(self, cdata: Pointer[c_char, bytes], length: int) -> bytes:
        """Copy `length` characters, NULs included."""
    @overload
    def unpack(self, cdata: Pointer[Any, _Item], length: int) -> list[_Item]:
        """Copy `length` items."""
    if sys.version_info >= (3, 12):
        def buffer(self, cdata: _CData, size: int = -1) -> Buffer:
            """Bytes of what a pointer points to, or of an array, without a copy."""
    else:
        # numpy.frombuffer takes a class that has __buffer__ only from 3.12 on.
        def buffer(self, cdata: _CData, size: int = -1) -> Any:
            """Bytes of what a pointer points to, or of an array, without a copy."""

    def memmove(self, dest: _CData | SupportsBuffer, src: _CData | SupportsBuffer, n: int) -> None:
        """Copy `n` bytes."""
    def gc(self, cdata: _T, destructor: Callable[[_T], object] | None, size: int = 0) -> _T:
        """Return a second object for a pointer; `destructor` is called when that one is collected."""
    def release(self, cdata: _CData, /) -> None:
        """Free now what `ffi.new`, `ffi.gc` or `ffi.from_buffer` holds."""
    def new_handle(self, x: object, /) -> VoidPointer:
        """A `void *` for a Python object. Keep the result alive as long as C has it."""
    def from_handle(self, x: AnyPointer, /) -> Any:
        """Python object behind a `void *` of `new_handle`."""
    def list_types(self) -> tuple[list[str], list[str], list[str]]:
        """Names of all typedefs, structs and unions."""
    def init_once(self, func: Callable[[], _T], tag: str) -> _T:
        """Call `func` once for all threads; later calls return its result."""
    def new_allocator(
        self,
        alloc: Callable[[int], _CData | None] | None = None,
        free: Callable[[_CData], object] | None = None,
        should_clear_after_alloc: bool = True,
    ) -> Callable[..., Any]:
        """Make a function that works as `ffi.new` with your own memory."""
    def def_extern(self, name: str = "", error: Any = None, onerror: Callable[..., Any] | None = None) -> Any:
        """Decorate a function for `extern "Python"`; these headers have none."""
    def dlopen(self, libpath: str | _CData | None, flags: int = 0, /) -> Any:
        """Open a shared library."""
    def dlclose(self, lib: Any, /) -> None:
        """Close what `dlopen` opened."""
