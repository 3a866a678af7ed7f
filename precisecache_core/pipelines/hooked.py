"""Our place in a transformer's forward, beside the hooks of diffusers, accelerate and torch.compile."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..blockcache.swap import COMPILED

NAME = "precisecache"
OFFLOADED = "_old_forward"  # where accelerate keeps the forward that it wraps

Forward = Callable[[Any, Callable, tuple, dict], Any]
IN_USE = "PreciseCache: this pipeline has caches already: call remove() on the earlier result first."


class HookedModule:
    """A transformer whose calls go through `forward` until `remove`.

    forward(module, original, args, kwargs): answers a call in place of original(*args, **kwargs). on_end(): the
    pipeline has ended, as far as diffusers tells.
    A compiled transformer is wrapped outside of what was compiled. Otherwise there is a hook of diffusers, beneath the
    offloading of accelerate, which may come and go while the hook is there.
    Raises ValueError if diffusers is missing or has no such hooks, and if the transformer is hooked already.
    """

    def __init__(self, module: Any, forward: Forward, on_end: Callable[[], None]) -> None:
        self.module = module
        self.forward = forward
        self.on_end = on_end
        self.is_removed = False
        self.attribute: str | None = None  # that we replaced, of a compiled transformer
        self.had_registry = "_diffusers_hook" in vars(module)
        if is_compiled(module):
            self._replace("forward" if _is_wrapped(module) else COMPILED)
        else:
            self._register()

    @property
    def is_outside_of_compiled_code(self) -> bool:
        """Whether the transformer was compiled before it was hooked."""
        return self.attribute is not None

    def remove(self) -> None:
        """Take our hook off again; does nothing the second time.

        Others may have kept our place in the forward, to put it back later: then it only passes calls on.
        """
        module, self.is_removed = self.module, True
        if self.attribute is not None:
            with _beneath_offloading(module):
                ours = vars(module).get(self.attribute)
                if isinstance(ours, _Replacement) and ours.owner is self:
                    setattr(module, self.attribute, ours.original)
            return
        registry = getattr(module, "_diffusers_hook", None)
        if registry is None or NAME not in registry.hooks:
            return
        with _beneath_offloading(module):
            registry.remove_hook(NAME, recurse=False)
            if getattr(vars(module).get("forward"), "__func__", None) is type(module).forward:
                del module.forward  # it is the class's own
        if not registry.hooks and not self.had_registry:
            del module._diffusers_hook

    def _replace(self, attribute: str) -> None:
        with _beneath_offloading(self.module):
            original = vars(self.module)[attribute]
            if isinstance(original, _Replacement) and not original.owner.is_removed:
                raise ValueError(IN_USE)
            setattr(self.module, attribute, _Replacement(self, original))
        self.attribute = attribute

    def _register(self) -> None:
        try:
            from diffusers.hooks import HookRegistry, ModelHook
        except ImportError as error:
            raise ValueError(
                f"PreciseCache: this needs diffusers 0.37 or newer ({error}). Install it: pip install -U diffusers."
            ) from error
        owner = self

        class Hook(ModelHook):
            _is_stateful = True  # so that the pipeline tells its end

            @torch.compiler.disable  # where the transformer is compiled afterwards
            def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
                original: Any = self.fn_ref.original_forward
                if owner.is_removed:
                    return original(*args, **kwargs)
                return owner.forward(module, original, args, kwargs)

            def reset_state(self, module: Any) -> Any:
                if not owner.is_removed:
                    owner.on_end()
                return module

        registry = HookRegistry.check_if_exists_or_initialize(self.module)
        if NAME in registry.hooks:
            raise ValueError(IN_USE)
        with _beneath_offloading(self.module):
            registry.register_hook(Hook(), NAME)


class _Replacement:
    """What stands where a compiled transformer is called."""

    def __init__(self, owner: HookedModule, original: Callable) -> None:
        self.owner = owner
        self.original = original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.owner.is_removed:
            return self.original(*args, **kwargs)
        return self.owner.forward(self.owner.module, self.original, args, kwargs)


def is_compiled(module: Any) -> bool:
    """Whether torch.compile was applied to the whole module."""
    return _is_wrapped(module) or vars(module).get(COMPILED) is not None


def unwrapped(module: Any) -> Any:
    """The module that torch.compile has wrapped, or the module itself."""
    return module._orig_mod if _is_wrapped(module) else module


def hook_names(modules: Iterable[Any]) -> Iterator[str]:
    """The names of the hooks of diffusers on modules and all of their parts."""
    for module in modules:
        for part in module.modules():
            registry = vars(part).get("_diffusers_hook")
            yield from registry.hooks if registry is not None else ()


def _is_wrapped(module: Any) -> bool:
    return "_orig_mod" in vars(module).get("_modules", {})


@contextmanager
def _beneath_offloading(module: Any) -> Iterator[None]:
    """A context in which `module.forward` is what accelerate wraps, if it does: it puts that back in its own time."""
    inner = unwrapped(module)  # where a compiled module keeps what is set on it, all but its own forward
    if OFFLOADED not in vars(inner) or (inner is not module and "forward" in vars(inner)):
        yield
        return
    outer, module.forward = module.forward, vars(inner)[OFFLOADED]
    try:
        yield
    finally:
        setattr(module, OFFLOADED, module.forward)
        module.forward = outer
