"""Which columns a template can read, found without rendering, across everything it includes, imports and extends.

The answer may be too large but never too small: rendering with only these columns is rendering with all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinja2 import meta, nodes

ROW = "row"
_REFERENCES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_MACRO_NAMES = ("caller", "varargs", "kwargs")
_ROW_METHODS = frozenset(name for name in dir(dict) if not name.startswith("__"))


class DynamicReferenceError(Exception):
    """A template names another one by an expression. `line` is 1-based."""

    def __init__(self, line: int) -> None:
        super().__init__("the name of an included template must be written out")
        self.line = line


def references(tree: nodes.Template) -> Iterator[tuple[str, int, bool]]:
    """(name, line, whether it may be missing) of every template that this one names. Raises DynamicReferenceError."""
    for node in tree.find_all(_REFERENCES):
        names = _names(node)
        if not names:
            raise DynamicReferenceError(node.lineno)
        optional = isinstance(node, nodes.Include) and (node.ignore_missing or len(names) > 1)
        for name in names:
            yield name, node.lineno, optional


def line_reading(column: str, tree: nodes.Template) -> int:
    """The first line on which a template reads a column, by its name or from `row`; 0 if it does not."""
    lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == column]
    lines += [owner.lineno for owner, name in _accesses(tree) if name == column and _is_row(owner)]
    return min(lines, default=0)


class _AnyColumn(Exception):  # an answer, not an error
    """What is read depends on the path that rendering takes."""


def columns_read(root: str, trees: Mapping[str, nodes.Template]) -> frozenset[str] | None:
    """Columns that the template `root` can read, None when it can read any. trees: it and all that it names."""
    rebound = {name for tree in trees.values() for name in _bound(tree)}
    blocks = any(True for tree in trees.values() for _ in tree.find_all(nodes.Block))
    try:
        names = _free_names(root, trees, {})
    except _AnyColumn:
        return None
    if blocks and names & rebound:
        return None  # a block may see what its template, or one that extends it, sets
    if ROW not in names:
        return frozenset(names)
    fields = [_row_fields(tree) for tree in trees.values()]
    if ROW in rebound or None in fields:
        return None
    return frozenset(names - {ROW}).union(*(f for f in fields if f is not None))


def _free_names(name: str, trees: Mapping[str, nodes.Template], done: dict[str, set[str]]) -> set[str]:
    """Names that a template looks up in its context, those of the templates it passes its context to included.

    Of a name that such a template reads, three things can be true here: it is never bound, and so a column; it is bound
    on every path, and so none; or else nobody knows. Raises _AnyColumn.
    """
    if name in done:
        return done[name]
    tree = trees[name]
    free = set(meta.find_undeclared_variables(tree))
    bound = set(_bound(tree))
    for node, certain in _references_with_scope(tree):
        if isinstance(node, nodes.Extends) or getattr(node, "with_context", False):
            for other in _names(node):
                used = _free_names(other, trees, done) if other in trees else set()
                if (used & bound) - certain:
                    raise _AnyColumn
                free |= used - bound
    done[name] = free
    return free


def _references_with_scope(tree: nodes.Template) -> Iterator[tuple[nodes.Node, set[str]]]:
    """Every include, import and extends, with the names that surely have a value of the template's own there."""
    everywhere = {name for node in tree.body for name in _sibling_names(node)}

    def visit(node: nodes.Node, certain: set[str]) -> Iterator[tuple[nodes.Node, set[str]]]:
        if isinstance(node, _REFERENCES):
            yield node, everywhere if isinstance(node, nodes.Extends) else certain
        if isinstance(node, nodes.Block):
            certain = set()
        for field in node.fields:
            value = getattr(node, field, None)
            here = certain | _own_names(node, field)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, nodes.Node):
                    yield from visit(child, here)
                    here = here | _sibling_names(child)

    yield from visit(tree, set())


def _own_names(node: nodes.Node, field: str) -> set[str]:
    """Names that a loop, `with` or macro gives to its body."""
    if field != "body":
        return set()
    if isinstance(node, nodes.For):
        return _stored(node.target)
    if isinstance(node, nodes.With):
        return {name for target in node.targets for name in _stored(target)}
    if isinstance(node, (nodes.Macro, nodes.CallBlock)):
        return {name for argument in node.args for name in _stored(argument)}
    return set()


def _sibling_names(node: nodes.Node) -> set[str]:
    """Names that a statement gives to the statements after it in the same body."""
    if isinstance(node, (nodes.Assign, nodes.AssignBlock)):
        return _stored(node.target)
    if isinstance(node, nodes.FromImport):
        return {n[1] if isinstance(n, tuple) else n for n in node.names}
    if isinstance(node, nodes.Macro):
        return {node.name}
    return {node.target} if isinstance(node, nodes.Import) else set()


def _stored(target: nodes.Node) -> set[str]:
    names = [target] if isinstance(target, nodes.Name) else list(target.find_all(nodes.Name))
    return {name.name for name in names if name.ctx in ("store", "param")}


def _bound(tree: nodes.Template) -> Iterator[str]:
    """Every name that the template itself gives a value somewhere."""
    for node in tree.find_all(nodes.Node):
        if isinstance(node, nodes.Name) and node.ctx in ("store", "param"):
            yield node.name
        elif isinstance(node, nodes.For):
            yield "loop"
        elif isinstance(node, (nodes.Macro, nodes.CallBlock)):
            yield from _MACRO_NAMES
        yield from _sibling_names(node)


def _names(node: nodes.Node) -> list[str]:
    """The template names in an include, import or extends; empty when they are not written out."""
    template: nodes.Expr = getattr(node, "template")  # noqa: B009  (not a field of every node)
    parts = template.items if isinstance(template, (nodes.Tuple, nodes.List)) else [template]
    names = [p.value for p in parts if isinstance(p, nodes.Const) and isinstance(p.value, str)]
    return names if len(names) == len(parts) else []


def row_columns_needed(tree: nodes.Template) -> frozenset[str]:
    """Columns that an expression reads from `row` and that must be there: all but those it has a default for or tests.
    None of them when it uses `row` in a way that does not tell."""
    fields = _row_fields(tree)
    if fields is None or ROW in _bound(tree):
        return frozenset()
    guards = [n.node for n in tree.find_all(nodes.Filter) if n.name in ("default", "d")]
    guards += [n.node for n in tree.find_all(nodes.Test) if n.name in ("defined", "undefined")]
    guarded = {n.attr for n in guards if isinstance(n, nodes.Getattr) and _is_row(n.node)}
    guarded |= {
        n.arg.value
        for n in guards
        if isinstance(n, nodes.Getitem) and _is_row(n.node) and isinstance(n.arg, nodes.Const)
    }
    return frozenset(fields - guarded)


def _row_fields(tree: nodes.Template) -> set[str] | None:
    """Columns read as `row.name` or `row['name']`; None when `row` is used in any other way."""
    fields: set[str] = set()
    plain = 0
    for owner, name in _accesses(tree):
        if not _is_row(owner):
            continue
        if not isinstance(name, str) or name in _ROW_METHODS or name.startswith("_"):
            return None
        fields.add(name)
        plain += 1
    uses = sum(1 for node in tree.find_all(nodes.Name) if node.name == ROW)
    return fields if uses == plain else None


def _accesses(tree: nodes.Template) -> Iterator[tuple[nodes.Expr, object]]:
    """(what is asked, for which name) of every `x.name` and `x['name']`; None when no name is written out."""
    for dot in tree.find_all(nodes.Getattr):
        yield dot.node, dot.attr
    for item in tree.find_all(nodes.Getitem):
        yield item.node, item.arg.value if isinstance(item.arg, nodes.Const) else None


def _is_row(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Name) and node.name == ROW
