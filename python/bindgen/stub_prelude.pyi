class CData:
    """A C object. `ffi.typeof(x)` tells its C type."""

    def __bool__(self) -> bool:
        """False for a NULL pointer."""
    def __hash__(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

class VoidPointer(CData):
    """`void *`."""

class Pointer(CData, Generic[_Tag, _Item]):
    """A C pointer: `Tag` is the C type that it points to, `Item` what indexing gives."""

    def __getitem__(self, index: int, /) -> _Item: ...
    def __setitem__(self, index: int, value: _Item, /) -> None: ...
    def __add__(self, count: int, /) -> Pointer[_Tag, _Item]: ...
    @overload
    def __sub__(self, other: int, /) -> Pointer[_Tag, _Item]: ...
    @overload
    def __sub__(self, other: Pointer[_Tag, _Item], /) -> int: ...
    def __lt__(self, other: CData, /) -> bool: ...
    def __le__(self, other: CData, /) -> bool: ...
    def __gt__(self, other: CData, /) -> bool: ...
    def __ge__(self, other: CData, /) -> bool: ...

class Array(Pointer[_Tag, _Item]):
    """A C array: a pointer that knows its length."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_Item]: ...

class FunctionPointer(CData, Generic[_P, _R]):
    """A pointer to a C function."""

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...

class Null(Pointer[Any, Any], FunctionPointer[..., Any]):
    """`ffi.NULL`: taken wherever a pointer is."""

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
    def __setitem__(self, index: int | slice, value: bytes, /) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

# Inside FFI, these names are its attributes.
_CData: TypeAlias = CData
_CType: TypeAlias = CType
