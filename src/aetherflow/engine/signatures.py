"""Function signatures, read once per node, with annotations evaluated one by one."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, ForwardRef, NamedTuple, NewType, TypeVar, Union, get_args, get_origin

from typing_extensions import TypeAliasType

__all__ = ["Signature", "accepts_mapping", "read_signature", "signature_of"]


class Signature(NamedTuple):
    """The parameters and the return annotation of a function.

    Args:
        parameters: The parameters in order, without ``*args`` and ``**kwargs``. If an annotation
            cannot be evaluated, the parameter has none.
        returns: The return annotation; ``inspect.Parameter.empty`` if there is none or it cannot be evaluated.
        has_var_positional: Whether the function has a ``*args`` parameter.
        has_var_keyword: Whether the function has a ``**kwargs`` parameter.
    """

    parameters: tuple[inspect.Parameter, ...]
    returns: Any
    has_var_positional: bool
    has_var_keyword: bool


def read_signature(func: Callable[..., Any]) -> Signature:
    """Read the signature of a callable.

    Each annotation is evaluated separately. One that fails, such as a name that is imported for type checkers only,
    does not affect the others.

    Args:
        func: A function, or another callable.

    Raises:
        TypeError: The object has no signature.
        ValueError: The signature cannot be read, as with some functions written in C.
    """
    signature = signature_of(func)
    evaluate = _Evaluator(func)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return Signature(
        tuple(
            parameter.replace(annotation=evaluate(parameter.annotation))
            for parameter in signature.parameters.values()
            if parameter.kind not in variadic
        ),
        # A class returns an instance, whatever its ``__init__`` is annotated with.
        inspect.Parameter.empty if isinstance(_innermost(func), type) else evaluate(signature.return_annotation),
        inspect.Parameter.VAR_POSITIONAL in kinds,
        inspect.Parameter.VAR_KEYWORD in kinds,
    )


def signature_of(func: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a callable, in which an annotation that cannot be evaluated is a forward reference.

    Python 3.14 and later evaluate annotations when the signature is read, and fail if a name is not defined.

    Raises:
        TypeError: The object has no signature.
        ValueError: The signature cannot be read, as with some functions written in C.
    """
    if sys.version_info < (3, 14):
        return inspect.signature(func)
    from annotationlib import Format  # type: ignore[import-not-found]  # of Python 3.14

    try:
        return inspect.signature(func, annotation_format=Format.FORWARDREF)
    except Exception:  # noqa: BLE001  # evaluating an annotation runs any code
        return inspect.signature(func, annotation_format=Format.STRING)


class _Evaluator:
    """Evaluates the annotations of a callable that are strings."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func
        self._namespaces: tuple[dict[str, Any], dict[str, Any]] | None = None

    def __call__(self, annotation: Any) -> Any:
        if isinstance(annotation, ForwardRef):
            annotation = annotation.__forward_arg__
        if not isinstance(annotation, str):
            return annotation
        if self._namespaces is None:
            self._namespaces = _namespaces_of(self._func)
        module, local = self._namespaces
        try:
            value = eval(annotation, module, local)  # the program's own source, as `inspect` evaluates it
            # A quoted annotation under postponed evaluation is quoted twice.
            return eval(value, module, local) if isinstance(value, str) else value
        except Exception:  # noqa: BLE001  # evaluating an annotation runs any code
            return _marked_part(annotation, module, local)


def _marked_part(annotation: str, module: dict[str, Any], local: dict[str, Any]) -> Any:
    """Return an annotation that fails as ``Annotated[Any, …]``, if it is ``Annotated``; otherwise no annotation.

    ``Annotated[Service, Provide["service"]]`` keeps its marker even if `Service` is imported for type checkers only.
    """
    try:
        tree = ast.parse(annotation, mode="eval").body
        namespace = _AnyForUnknown(module, local)
        if not isinstance(tree, ast.Subscript) or not isinstance(tree.slice, ast.Tuple):
            return inspect.Parameter.empty
        if eval(ast.unparse(tree.value), module, namespace) is not Annotated:
            return inspect.Parameter.empty
    except Exception:  # noqa: BLE001  # evaluating an annotation runs any code
        return inspect.Parameter.empty
    metadata = []
    for part in tree.slice.elts[1:]:
        with suppress(Exception):  # as above; one that fails does not affect the others
            metadata.append(eval(ast.unparse(part), module, namespace))
    annotated: Any = Annotated  # which type checkers take for no value
    return annotated[(Any, *metadata)] if metadata else inspect.Parameter.empty


class _AnyForUnknown(dict[str, Any]):
    """A namespace in which every unknown name is `Any`."""

    def __init__(self, module: Mapping[str, Any], local: Mapping[str, Any]) -> None:
        super().__init__(local)
        self._module = module

    def __missing__(self, name: str) -> Any:
        if name in self._module:
            return self._module[name]
        return getattr(builtins, name, Any)


def _innermost(func: Callable[..., Any]) -> Any:
    """Return the function or the class that a callable calls in the end, if it is written in Python."""
    target: Any = func
    while True:
        if isinstance(target, functools.partial):
            target = target.func
        elif isinstance(target, types.MethodType):
            target = target.__func__
        elif isinstance(target, types.FunctionType):
            wrapped = inspect.unwrap(target)
            if wrapped is target:
                return target
            target = wrapped
        elif isinstance(target, type):
            return target
        elif isinstance(called := getattr(type(target), "__call__", None), types.FunctionType):  # noqa: B004  # the method itself is read
            target = called
        else:
            return target


def _namespaces_of(func: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the module and the local names that annotations of a callable refer to."""
    target = _innermost(func)
    if isinstance(target, type):
        module = sys.modules.get(target.__module__)
        return dict(vars(module)) if module else {}, dict(vars(target))
    if not isinstance(target, types.FunctionType):
        return {}, {}
    code = target.__code__
    closure = {}
    for name, cell in zip(code.co_freevars, target.__closure__ or (), strict=False):
        try:
            closure[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    type_parameters = {each.__name__: each for each in getattr(target, "__type_params__", ())}
    return target.__globals__, {**type_parameters, **closure}


def accepts_mapping(annotation: Any) -> bool:
    """Return whether a parameter with this annotation may be passed any mapping.

    Args:
        annotation: An evaluated annotation; ``inspect.Parameter.empty`` for none.

    Returns:
        True for no annotation, `Any`, `object`, a type variable, `Mapping` and its subclasses, a ``TypedDict``, a
        union with one of these, and an annotation that cannot be evaluated.
    """
    if annotation is inspect.Parameter.empty or annotation is Any or annotation is object:
        return True
    if isinstance(annotation, TypeVar | ForwardRef | str):
        return True
    origin = get_origin(annotation)
    if origin is Annotated:
        return accepts_mapping(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return any(map(accepts_mapping, get_args(annotation)))
    if isinstance(annotation, NewType):
        return accepts_mapping(annotation.__supertype__)
    kind = annotation if origin is None else origin
    try:
        if isinstance(kind, TypeAliasType):
            return accepts_mapping(kind.__value__)
        return isinstance(kind, type) and issubclass(kind, Mapping)
    except Exception:  # noqa: BLE001  # an alias is evaluated when it is read, and metaclasses run any code
        return True
