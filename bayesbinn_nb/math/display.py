import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product as cartesian
from pathlib import Path

import torch
from torch import Tensor

# ------------------------------------------------------------------ tokens
_LETTERS = dict(
    alpha="α", beta="β", gamma="γ", delta="δ", Delta="Δ", varepsilon="ε", epsilon="epsilon", theta="θ", kappa="κ",
    lambda_="λ", mu="μ", xi="ξ", pi="π", sigma="σ", tau="τ", phi="φ", omega="ω", Phi="Φ", ell="l", infty="∞", ast="*",
    eta="η", Omega="Ω",
)  # fmt: skip
_LETTERS["lambda"] = _LETTERS.pop("lambda_")
_RELATIONS = {
    "=": "=", ":=": "=", "<": "<", ">": ">", r"\le": "≤", r"\ge": "≥", r"\leq": "≤", r"\geq": "≥", r"\ne": "≠",
    r"\neq": "≠", r"\approx": "≈", r"\propto": "∝", r"\sim": "∼", r"\in": "∈", r"\leftarrow": "←", r"\to": "→",
}  # fmt: skip
_SEPARATORS = {",", ";", "QUAD", "ROW", r"\Rightarrow", r"\Longrightarrow", r"\Longleftrightarrow", r"\Leftrightarrow"}
_IGNORED = {
    r"\;", r"\,", r"\!", r"\:", r"\ ", "~", "&", r"\left", r"\right", r"\displaystyle", r"\textstyle", r"\limits",
    r"\middle",
    *(f"\\{size}{side}" for size in ("big", "Big", "bigg", "Bigg") for side in ("", "l", "r")),
}  # fmt: skip
_STYLES = {r"\mathrm", r"\mathbb", r"\mathbf", r"\mathsf", r"\boldsymbol", r"\rm"}
_TOKEN = re.compile(
    r"\\text\{(?P<text>[^{}]*)\}|\\operatorname\{(?P<named>[^{}]*)\}|(?P<command>\\[A-Za-z]+|\\.)"
    r"|(?P<number>\d+\.\d+|\d+|\.\d+)|(?P<other>:=|[^\s])"
)
_PREPARED = (
    (r"\\(tag|label|begin|end)\{(aligned|[^{}]*)\}", lambda m: m[0] if m[2] == "cases" else ""),
    (r"\\phantom\{[^{}]*\}", ""),
    (r"(?<=\d)\\,(?=\d{3})", ""),  # 54\,000
    (r"\\[tdc]?frac(?![A-Za-z])", r"\\frac"),
    (r"\\frac\s*(\d)", r"\\frac{\1}"),  # \tfrac12 is one half
    (r"(\\frac\{[^{}]*\})\s*([0-9A-Za-z])", r"\1{\2}"),
    (r"([_^])\s*(\d)", r"\1{\2}"),
    (r"\\q?quad", " QUAD "),
)


def _tokens(latex):
    for pattern, new in _PREPARED:
        latex = re.sub(pattern, new, latex)
    found = []
    for m in re.finditer(r"QUAD|" + _TOKEN.pattern, latex):
        if m[0] == "QUAD":
            found.append("QUAD")
        elif m["text"] is not None:
            found.append(("text", m["text"].strip()))
        elif m["named"] is not None:
            found.append(("named", m["named"]))
        elif m[0] not in _IGNORED:
            found.append("ROW" if m[0] == r"\\" else m[0])
    return found
# ------------------------------------------------------------------ scope
class Scope:
    "What the symbols of a formula stand for; `at.μ` and `at['λ_0']` look one up"

    def __init__(self, names, changed=frozenset()):
        self.names, self.changed = names, changed

    def __getitem__(self, name):
        if name not in self.names:
            raise NameError(f"the formula uses {name}, which the check does not bind; bound are {', '.join(self.names)}")
        value = self.names[name]
        return value.compute(self) if isinstance(value, Rule) else value

    __getattr__ = __getitem__

    def __contains__(self, name):
        return name in self.names

    def but(self, **changed):
        return Scope({**self.names, **changed}, self.changed | set(changed))


@dataclass
class Rule:
    "A symbol that follows from others: `λ=Rule(lambda at: artanh(at.μ))` makes λ move when μ is differentiated"

    compute: Callable


@dataclass
class Over:
    "An operator on an expression, such as E or P: it gets the expression as a function of the symbols it fills in"

    operate: Callable


@dataclass
class Body:
    "An expression handed to an operator: `body(w=…)` is its value there, `body.at` its surroundings"

    node: object
    at: Scope

    def __call__(self, **changed):
        return self.node.value(self.at.but(**changed))


@dataclass
class Law:
    "A distribution function, for the right side of ∼"

    cdf: Callable


def _sign(x):
    return torch.sign(x)


_FUNCTIONS = {
    "log": torch.log, "ln": torch.log, "exp": torch.exp, "tanh": torch.tanh, "cosh": torch.cosh, "sinh": torch.sinh,
    "sech": lambda x: 1 / torch.cosh(x), "artanh": torch.atanh, "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
}  # fmt: skip
_CONSTANTS = {
    "e": math.e, "π": math.pi, "∞": math.inf, "calU": lambda a, b: Law(lambda x: ((x - a) / (b - a)).clamp(0, 1)),
    "calN": lambda m, v: Law(lambda x: torch.special.ndtr((x - m) / v**0.5)),
    "max": lambda *a: torch.stack(torch.broadcast_tensors(*a)).amax(0),
    "min": lambda *a: torch.stack(torch.broadcast_tensors(*a)).amin(0),
    "clamp": lambda x, lo, hi: torch.minimum(torch.maximum(x, lo), hi), "sign": torch.sign,
}  # fmt: skip


def _number(x):
    if isinstance(x, Law):
        return x
    return x if isinstance(x, Tensor) and x.is_floating_point() else torch.as_tensor(x, dtype=torch.float64)


# ------------------------------------------------------------------ nodes
@dataclass
class Number:
    text: str

    def value(self, at):
        return _number(float(self.text))


@dataclass
class Name:
    base: str
    sub: list = field(default_factory=list)  # parsed subscript, a list of nodes
    sub_text: str = ""
    sup: list = field(default_factory=list)  # an index in brackets above, p^(c)
    primes: int = 0

    @property
    def full(self):
        return self.base + (f"_{self.sub_text}" if self.sub_text else "")

    def value(self, at):
        for name in (self.full + "'" * self.primes, self.full):
            if name in at:
                found, index = at[name], []
                break
        else:
            short = f"{self.base}_{self.sub_text.split('(')[0]}"
            if short != self.full and short in at:
                found, index = at[short], []
            elif not (self.sub or self.sup):
                return at[self.full]
            else:
                found, index = (at[self.base] if self.base in at else at[self.full]), self.sub
        if self.primes and name != self.full + "'" * self.primes:
            found = _differentiated(found, self.primes)
        for node in [*self.sup, *index]:
            found = _entry(found, node.value(at))
        return found


def _entry(collection, index):
    index = int(index)
    if callable(collection):
        return collection(index)
    if index < 1:
        raise IndexError(f"entry {index} of a list that begins at 1")
    return collection[index - 1]


def _differentiated(f, times):
    step = 1e-4
    if times == 0:
        return f
    g = _differentiated(f, times - 1)
    return lambda x: (g(x + step) - g(x - step)) / (2 * step)


@dataclass
class Bracket:
    content: list  # statements; one expression without relation is its value
    kind: str = "("

    def expressions(self):
        return [s.sides[0] for s in self.content]

    def value(self, at):
        if any(s.relations for s in self.content):  # Iverson's bracket: 1 where it holds
            return _number(self.content[0].mask(at).double())
        if len(self.content) != 1:
            return torch.stack([_number(e.value(at)) for e in self.expressions()])
        return self.content[0].sides[0].value(at)


@dataclass
class Members:
    content: list
    times: object = None

    def value(self, at):
        values = [s.sides[0].value(at) for s in self.content]
        if self.times is None:
            return values
        return [torch.stack(row) for row in cartesian(values, repeat=int(self.times.value(at)))]


@dataclass
class Power:
    base: object
    exponent: object

    def value(self, at):
        if isinstance(self.base, Members):
            return Members(self.base.content, self.exponent).value(at)
        base, exponent = _number(self.base.value(at)), self.exponent.value(at)
        if base.ndim == 2 and base.shape[0] == base.shape[1] and exponent == -1:
            return torch.linalg.inv(base)
        return base**exponent


@dataclass
class Transposed:
    base: object

    def value(self, at):
        return self.base.value(at)


@dataclass
class Call:
    function: str
    argument: object
    power: object = None

    def value(self, at):
        f = at[self.function] if self.function in at else _FUNCTIONS[self.function]
        v = self.argument.value(at)
        result = _number(len(v)) if isinstance(v, list) else f(_number(v))  # |B|, the size of a set
        return result if self.power is None else result ** self.power.value(at)


@dataclass
class Sum:
    terms: list  # (sign, node)

    def value(self, at):
        total = 0
        for sign, node in self.terms:
            v = node.value(at)
            total = total + v if sign == "+" else total - v if sign == "-" else total + at["±"] * v
        return total


@dataclass
class Product:
    factors: list  # (operator, node) with operator * or /

    def value(self, at):
        result, row, k = None, False, 0
        while k < len(self.factors):
            op, node = self.factors[k]
            v, k = self._applied(node, k, at)
            if isinstance(v, _Everything):  # an operator has taken all the rest
                v = v.value
            if result is None:
                result = _number(v) if not callable(v) and not isinstance(v, list) else v
            elif op == "/":
                result = result / v
            elif isinstance(v, Tensor) and result.ndim == 2 and v.ndim == 1:
                result = result @ v  # matrix and vector
            else:
                result = result @ v if row else result * v
            row = isinstance(node, Transposed) or (row and result.ndim > 0)
        return result

    def _applied(self, node, k, at):
        "The value of factor k, applied to the bracket behind it if it is a function"
        power = None
        if isinstance(node, Power) and isinstance(node.base, Name) and callable(_try(node.base, at)):
            node, power = node.base, node.exponent
        v = node.value(at)
        k += 1
        while (callable(v) or isinstance(v, Over)) and k < len(self.factors):
            behind = self.factors[k][1]
            outer = None
            if isinstance(behind, Power) and isinstance(behind.base, Bracket):
                behind, outer = behind.base, behind.exponent
            if isinstance(behind, Bracket):
                v = v.operate(*(Body(s if s.relations else s.sides[0], at) for s in behind.content)) if isinstance(v, Over) else v(*(e.value(at) for e in behind.expressions()))
                k += 1
                for p in (power, outer):
                    v = v if p is None else v ** p.value(at)
                power = None
            elif isinstance(v, Over):
                return _Everything(v.operate(Body(Product(self.factors[k:]), at))), len(self.factors)
            else:
                break
        return v, k


@dataclass
class _Everything:
    value: Tensor


def _try(node, at):
    try:
        return node.value(at)
    except (NameError, IndexError):
        return None


@dataclass
class Operator:
    "∑, ∏, ∫, ∇, d/dx, lim, min, arg max … before an expression"

    kind: str
    variable: object  # a Name, or None
    body: object
    domain: object = None  # what the variable runs through, or tends to
    upper: object = None
    times: int = 1

    def value(self, at):
        return getattr(self, "_" + self.kind)(at)

    def _values(self, at):
        if self.upper is not None:
            return range(int(self.domain.value(at)), int(self.upper.value(at)) + 1)
        found = self.domain.value(at) if self.domain is not None else at[self.variable.base]
        if isinstance(found, Tensor):
            raise TypeError(f"the sum over {self.variable.base} needs a range, not the number {found}")
        return found

    def _bodies(self, at):
        return [self.body.value(at.but(**{self.variable.full: v})) for v in self._values(at)]

    def _sum(self, at):
        return sum(self._bodies(at))

    def _prod(self, at):
        return math.prod(self._bodies(at))

    def _int(self, at):
        from scipy.integrate import quad

        def f(x):
            return float(self.body.value(at.but(**{self.variable.full: _number(x)})))

        lo, hi = float(self.domain.value(at)), float(self.upper.value(at))
        return _number(quad(f, lo, hi, limit=200)[0])

    def _slope(self, at, x, direction, step):
        def f(h):
            return self.body.value(at.but(**{self.variable.full: x + h * direction}))

        return (f(step) - f(-step)) / (2 * step)

    def _d(self, at):
        "Derivative, component by component where the expression has as many"
        name = self.variable.full
        direction = 1.0
        if name not in at and self.variable.sub:
            index = int(self.variable.sub[0].value(at))
            self = Operator("d", Name(self.variable.base), self.body, times=self.times)
            name = self.variable.full
            direction = torch.zeros_like(at[name])
            direction[index - 1] = 1.0
        x = _number(at[name])
        if self.times == 1:
            return self._slope(at, x, direction, 1e-5)
        f = [self.body.value(at.but(**{name: x + h * direction})) for h in (-1e-4, 0.0, 1e-4)]
        return (f[0] - 2 * f[1] + f[2]) / 1e-8

    def _grad(self, at):
        x = _number(at[self.variable.full])
        if x.ndim == 0:
            return self._slope(at, x, 1.0, 1e-5)
        return torch.stack([_number(self._slope(at, x, d, 1e-5)).sum() for d in torch.eye(len(x), dtype=x.dtype)])

    def _lim(self, at):
        target = float(self.domain.value(at))
        near = 1 / at["near"] if target == math.inf else target + at["near"]
        return self.body.value(at.but(**{self.variable.full: _number(near)}))

    def _best(self, at):
        if self.kind in at and isinstance(at[self.kind], Over):
            return at[self.kind].operate(Body(self.body, at))
        name = self.variable.full
        if self.domain is None and not (name in at and isinstance(at[name], list | range)):
            raise NameError(f"{self.kind} over {name}: give a list of its values, or the operator as {self.kind}=Over(…)")
        values = list(self._values(at))
        found = torch.stack([_number(self.body.value(at.but(**{name: v}))) for v in values])
        k = found.argmax(0) if self.kind.endswith("max") else found.argmin(0)
        if not self.kind.startswith("arg"):
            return found.amax(0) if self.kind == "max" else found.amin(0)
        return _number(values)[k] if k.ndim else values[k]

    _min = _max = _argmin = _argmax = _best


@dataclass
class At:
    "An expression at given values: f(w)|_{w=0}"

    body: object
    statements: list

    def value(self, at):
        given = {s.sides[0].full: s.sides[1].value(at) for s in self.statements}
        return self.body.value(at.but(**given))


@dataclass
class Cases:
    rows: list  # (node, condition statements)

    def value(self, at):
        result, open_ = None, None
        for node, conditions in self.rows:
            v = _number(node.value(at))
            mask = torch.tensor(True)
            for c in conditions:
                mask = mask & c.mask(at)
            if result is None:
                result, open_ = torch.where(mask, v, torch.nan), ~mask
            else:
                result = torch.where(open_ & mask, v, result)
                open_ = open_ & ~mask
        return result


@dataclass
class Marked:
    "An expression with a name written under or over it: both have to agree"

    body: object
    label: object

    def value(self, at):
        v = self.body.value(at)
        _compare("=", v, self.label.value(at), Tolerance(), "the name under a brace")
        return v
# ------------------------------------------------------------------ statements
@dataclass
class Tolerance:
    rtol: float = 1e-6
    atol: float = 1e-8
    tight: float | None = 1e-2  # how nearly some value must reach a bound
    average: bool = False  # compare means over the first axis
    shrink: dict = field(default_factory=dict)  # for O(·): a symbol and values of it that shrink
    approx: float = 1e-2  # relative tolerance of ≈ between expressions


@dataclass
class Statement:
    sides: list
    relations: list
    conditions: list = field(default_factory=list)

    def value(self, at):
        "1 where the relations hold, else 0"
        return self.mask(at).double()

    def mask(self, at):
        "Where the relations hold, as a tensor of truth values"
        result = torch.tensor(True)
        for a, relation, b in zip(self.sides, self.relations, self.sides[1:]):
            a, b = a.value(at), b.value(at)
            holds = {
                "=": lambda a, b: a == b, "≠": lambda a, b: a != b, "<": lambda a, b: a < b, ">": lambda a, b: a > b,
                "≤": lambda a, b: a <= b, "≥": lambda a, b: a >= b,
                "∈": lambda a, b: torch.stack([a == v for v in b]).any(0),
            }[relation]  # fmt: skip
            result = result & holds(a, b)
        return result


def _failed(where, relation, a, b):
    show = lambda v: f"{v.flatten()[:4].tolist()}" if isinstance(v, Tensor) else repr(v)
    raise AssertionError(f"{where}: {show(a)} {relation} {show(b)} does not hold")


def _compare(relation, a, b, tol, where, mask=None, printed=None):
    if isinstance(b, Law):
        return _same_law(_number(a).flatten().sort().values, b, where)
    if relation == "∈":
        return _members(a, b, where)
    if isinstance(a, list) or isinstance(b, list):
        raise TypeError(f"{where}: a set stands where a number is needed")
    a, b = _number(a), _number(b)
    if relation == "∼":
        return _same_sample(a, b, where)
    if tol.average:
        a, b = a.mean(0) if a.ndim > b.ndim else a, b.mean(0) if b.ndim > a.ndim else b
    a, b = torch.broadcast_tensors(a.double(), b.double())
    if mask is not None:
        mask = mask.expand(a.shape) if mask.ndim <= a.ndim else mask
        a, b = (v.expand(mask.shape)[mask] for v in (a, b))
        if not len(a):
            raise AssertionError(f"{where}: no value given satisfies its condition")
    if relation == "≈":
        digits = printed or tol.approx
        good = (a - b).abs() <= (digits if printed else digits * b.abs().max() + tol.atol)
    elif relation in "=":
        good = torch.isclose(a, b, rtol=tol.rtol, atol=tol.atol)
    elif relation in "≤<≥>":
        if relation in "≥>":
            a, b = b, a
        slack = b - a
        good = slack >= -tol.atol - tol.rtol * b.abs() if relation in "≤≥" else slack > 0
        nearest = (slack / torch.maximum(a.abs(), b.abs()).clamp_min(1e-300)).min()
        if tol.tight is not None and good.all() and nearest > tol.tight:
            raise AssertionError(f"{where}: no value given comes near the bound, so the check could not see a looser one")
    elif relation == "∝":
        ratio = a / b
        good = torch.isclose(ratio, ratio.flatten()[:1].expand(ratio.shape), rtol=tol.rtol, atol=0.0)
    elif relation == "≠":
        good = a != b
    else:
        raise NotImplementedError(f"{where}: the relation {relation}")
    if not good.all():
        _failed(where, relation, a[~good], b[~good])


def _members(a, b, where):
    values = [a] if not isinstance(a, list) else a
    values = torch.cat([_number(v).flatten() for v in values])
    if isinstance(b, Tensor):  # an interval
        inside = (values >= b[0]) & (values <= b[-1])
        reach = (values.max() - values.min()) >= 0.98 * (b[-1] - b[0])
    else:
        members = torch.stack([_number(v) for v in b])
        inside = (values[:, None] == members).any(1)
        reach = (values[:, None] == members).any(0).all()
    if not inside.all() or not reach:
        _failed(where, "∈", values, b)


def _same_law(sample, law, where):
    n = len(sample)
    gap = (law.cdf(sample) - (torch.arange(n, dtype=torch.float64) + 0.5) / n).abs().max()
    if gap > 1.7 / n**0.5:
        raise AssertionError(f"{where}: the sample does not follow the distribution (distance {gap:.3f}, n = {n})")


def _same_sample(a, b, where):
    a, b = a.flatten().sort().values, b.flatten().sort().values
    n, m = len(a), len(b)
    gap = (torch.searchsorted(b, a, right=True) / m - (torch.arange(n) + 1) / n).abs().max()
    if gap > 1.7 * ((n + m) / (n * m)) ** 0.5:
        raise AssertionError(f"{where}: the two samples have different distributions (distance {gap:.3f})")


# ------------------------------------------------------------------ parser
class _Parser:
    def __init__(self, tokens):
        self.tokens, self.k, self.bars = tokens, 0, 0

    def peek(self, ahead=0):
        return self.tokens[self.k + ahead] if self.k + ahead < len(self.tokens) else None

    def take(self, expected=None):
        token = self.peek()
        if expected is not None and token != expected:
            raise SyntaxError(f"expected {expected} at {self.tokens[self.k : self.k + 6]}")
        self.k += 1
        return token

    def group(self):
        "The tokens of { … } or the one token that stands for it"
        if self.peek() != "{":
            return [self.take()]
        self.take()
        depth, start = 1, self.k
        while depth:
            token = self.take()
            depth += (token == "{") - (token == "}")
        return self.tokens[start : self.k - 1]

    # statements
    def statements(self, until=()):
        found, condition = [], None
        while self.peek() is not None and self.peek() not in until:
            token = self.peek()
            if isinstance(token, tuple) and token[0] == "text":
                self.take()
                word = token[1].split()[0] if token[1] else ""
                if word in ("if", "for", "where", "with", "as", "while", "in", "when"):
                    condition = found[-1]
                continue
            if token in _SEPARATORS or token == ".":
                self.take()
                if self.peek() == r"\xrightarrow":
                    self.chain(found[-1])
                if token in (r"\Rightarrow", r"\Longrightarrow", r"\Longleftrightarrow", r"\Leftrightarrow", ";", "ROW"):
                    condition = None
                continue
            if token in _RELATIONS and found:  # a chain goes on in the next row
                statement = found[-1]
                self.chain(statement)
                continue
            statement = self.chain(Statement([self.sum()], []))
            side = statement.sides[0]
            if not statement.relations and isinstance(side, Bracket) and found and any(s.relations for s in side.content):
                found[-1].conditions += side.content
            elif condition is not None and statement.relations:
                condition.conditions.append(statement)
                condition = None
            else:
                condition = None
                found.append(statement)
        return found

    def chain(self, statement):
        while self.peek() in _RELATIONS or self.peek() == r"\xrightarrow":
            token = self.take()
            if token == r"\xrightarrow":
                statement.conditions += _Parser(self.group()).statements()
                statement.relations.append("→")
            else:
                statement.relations.append(_RELATIONS[token])
            statement.sides.append(self.sum())
        return statement

    # expressions
    def sum(self):
        terms, sign = [], "+"
        if self.peek() in ("+", "-", r"\pm"):
            sign = {r"\pm": "±"}.get(self.peek(), self.peek())
            self.take()
        terms.append((sign, self.term()))
        while self.peek() in ("+", "-", r"\pm"):
            sign = {r"\pm": "±"}.get(self.peek(), self.peek())
            self.take()
            terms.append((sign, self.term()))
        return terms[0][1] if len(terms) == 1 and terms[0][0] == "+" else Sum(terms)

    def starts_factor(self):
        t = self.peek()
        if t is None or t in _RELATIONS or t in _SEPARATORS or t in ("+", "-", r"\pm", "}", ")", "]", r"\}", ".", r"\xrightarrow"):
            return False
        if t in (r"\|", r"\mid", r"\rVert", r"\end"):
            return False
        if isinstance(t, tuple) and t[0] == "text":
            return False
        if t == "|":
            return not self.bars and self.peek(1) != "_"
        return True

    def term(self):
        factors = []
        while True:
            op = "*"
            if self.peek() in (r"\cdot", r"\odot", r"\times"):
                self.take()
            elif self.peek() == "/":
                self.take()
                op = "/"
            elif not self.starts_factor():
                break
            factors.append((op, self.factor()))
        if not factors:
            raise SyntaxError(f"an expression is missing at {self.tokens[self.k : self.k + 6]}")
        node = factors[0][1] if len(factors) == 1 else Product(factors)
        if self.peek() == "|" and self.peek(1) == "_":
            self.k += 2
            node = At(node, _Parser(self.group()).statements())
        return node

    def factor(self):
        t = self.take()
        handler = {
            "(": self._bracket, "[": self._bracket, "{": self._bracket, r"\{": self._set, "|": self._bars,
            r"\lVert": self._norm, r"\frac": self._frac, r"\sqrt": self._sqrt, r"\sum": self._big, r"\prod": self._big,
            r"\int": self._big, r"\nabla": self._nabla, r"\lim": self._optimum, r"\min": self._optimum,
            r"\max": self._optimum, r"\arg": self._optimum, r"\underbrace": self._brace, r"\overbrace": self._brace,
            r"\begin": self._cases, r"\partial": self._nabla, r"\hat": self._accent, r"\tilde": self._accent, r"\bar": self._accent,
        }.get(t if isinstance(t, str) else "")  # fmt: skip
        if t in (r"\max", r"\min") and self.peek() == "(":
            return self._name(t[1:])
        if handler is not None:
            return handler(t)
        if isinstance(t, str) and re.fullmatch(r"[\d.]+", t):
            return self.scripts(Number(t))
        return self._symbol(t)

    def _symbol(self, t):
        if isinstance(t, tuple):
            if t[0] == "text":
                return self._name(t[1])
            if t[0] == "named" and t[1] in _FUNCTIONS:
                return self._function(t[1])
            return self._name(t[1])
        if t == r"\mathcal":
            return self._name("cal" + "".join(self.group()))
        if t in _STYLES:
            return self._name("".join(x if isinstance(x, str) else x[1] for x in self.group()))
        if t.startswith("\\") and t[1:] in _FUNCTIONS:
            return self._function(t[1:])
        if t.startswith("\\") and t[1:] in _LETTERS:
            return self._name(_LETTERS[t[1:]])
        if t == r"\Pr" or re.fullmatch(r"\w|\*", t):
            return self._name(t)
        raise SyntaxError(f"no meaning for {t} at {self.tokens[self.k - 1 : self.k + 6]}")

    def _name(self, base):
        name = Name(base)
        while self.peek() in ("_", "^", "'"):
            token = self.take()
            if token == "'":
                name.primes += 1
                continue
            inside = self.group()
            if token == "_":
                name.sub_text = _plain(inside)
                name.sub = _indices(inside)
            elif inside in ([r"\top"], [r"\mathsf", "T"], [r"\mathsf", "{", "T", "}"]):
                return Transposed(name)
            elif inside in (["*"], [r"\ast"], [r"\star"]):
                name.base += "*"
            elif inside[0] == "(" and inside[-1] == ")":
                name.sup = _indices(inside[1:-1])
            elif all(x == r"\prime" for x in inside):
                name.primes += len(inside)
            else:
                power = Power(name, _Parser(inside).sum())
                if self.peek() == "_":
                    self.take()
                    inside = self.group()
                    name.sub_text, name.sub = _plain(inside), _indices(inside)
                return power
        return name

    def scripts(self, node):
        while self.peek() in ("^", "'"):
            self.take()
            inside = self.group()
            node = Transposed(node) if inside in ([r"\top"], [r"\mathsf", "T"]) else Power(node, _Parser(inside).sum())
        return node

    def _function(self, name):
        power = None
        if self.peek() == "^":
            self.take()
            power = _Parser(self.group()).sum()
        if self.peek() in ("(", "[", "{"):
            return Call(name, self._bracket(self.take(), bare=True), power)
        factors = []
        while self.starts_factor() and (not factors or self._goes_on(factors[-1][1])):
            factors.append(("*", self.factor()))
        if self.peek() == "/" and len(factors) == 1 and isinstance(factors[0][1], Bracket):
            pass
        return Call(name, Product(factors) if len(factors) > 1 else factors[0][1], power)

    def _goes_on(self, last):
        t = self.peek()
        if t in ("(", "["):
            return isinstance(last, Name)
        is_function = isinstance(t, tuple) or (isinstance(t, str) and t.startswith("\\") and t[1:] in _FUNCTIONS)
        return not is_function and t not in ("(", "[", r"\cdot", r"\odot") and not isinstance(last, Operator | Bracket)

    def _bracket(self, t, bare=False):
        close = {"(": ")", "[": "]", "{": "}"}[t]
        bars, self.bars = self.bars, 0
        content = []
        while self.peek() not in (")", "]") if t != "{" else self.peek() != "}":
            if self.peek() in (",", r"\|", r"\mid", ";", "QUAD"):
                self.take()
                continue
            if self.peek() == "|" and t == "[":
                self.take()
                continue
            content.append(self.chain(Statement([self.sum()], [])))
        self.take()
        self.bars = bars
        node = Bracket(content, t)
        return node if bare else self.scripts(node)

    def _set(self, t):
        content = []
        while self.peek() != r"\}":
            if self.peek() == ",":
                self.take()
                continue
            content.append(Statement([self.sum()], []))
        self.take()
        return self.scripts(Members(content))

    def _bars(self, t):
        bars, self.bars = self.bars, 1
        node = self.sum()
        self.take("|")
        self.bars = bars
        return self.scripts(Call("abs", node))

    def _norm(self, t):
        node = self.sum()
        self.take(r"\rVert")
        return self.scripts(Call("norm", node))

    def _frac(self, t):
        top, bottom = self.group(), self.group()
        if top and top[0] in ("d", r"\partial") and bottom and bottom[0] in ("d", r"\partial"):
            return self._derivative(top[1:], bottom[1:])
        return self.scripts(Product([("*", _Parser(top).whole()), ("/", _Parser(bottom).whole())]))

    def _derivative(self, top, bottom):
        times = 1
        if top[:1] == ["^"]:
            inner = _Parser(top[1:])
            times = int("".join(inner.group()))
            top = inner.tokens[inner.k :]
        inner = _Parser(bottom)
        variable = inner.factor()
        if isinstance(variable, Power):
            variable = variable.base
        body = _Parser(top).whole() if top else self.term()
        return Operator("d", variable, body, times=times)

    def whole(self):
        node = self.sum()
        if self.peek() is not None:
            raise SyntaxError(f"cannot read on at {self.tokens[self.k : self.k + 6]}")
        return node

    def _sqrt(self, t):
        return self.scripts(Power(_Parser(self.group()).whole(), Number(".5")))

    def _brace(self, t):
        body = _Parser(self.group()).whole()
        if self.peek() in ("_", "^"):
            self.take()
            body = Marked(body, _Parser(self.group()).whole())
        return body

    def _accent(self, t):
        inside = self.group()
        inner = _Parser(inside)
        name = inner.factor()
        return self._name(f"{t[1:]}_{name.base}")

    def _big(self, t):
        kind, variable, domain, upper = t[1:], None, None, None
        while self.peek() in ("_", "^"):
            low = self.take() == "_"
            inside = self.group()
            if not low:
                upper = _Parser(inside).whole()
            elif kind == "int":
                domain = _Parser(inside).whole()
            else:
                s = _Parser(inside).statements()[0]
                variable, domain = s.sides[0], s.sides[1] if s.relations else None
        if kind == "int":
            return self._integral(domain, upper)
        return Operator(kind, variable, self.term(), domain, upper)

    def _integral(self, lower, upper):
        k = self.k
        while not (self.tokens[k] == "d" and k + 1 < len(self.tokens)):
            k += 1
        inner = _Parser(self.tokens[self.k : k])
        body = inner.whole()
        self.k = k + 1
        return Operator("int", self.factor(), body, lower, upper)

    def _nabla(self, t):
        self.take("_")
        inside = _Parser(self.group()).whole()
        kind, body = "grad" if t == r"\nabla" else "d", self.term()
        if isinstance(body, At):  # differentiate first, then put in
            return At(Operator(kind, inside, body.body), body.statements)
        return Operator(kind, inside, body)

    def _optimum(self, t):
        kind = t[1:]
        if kind == "arg":
            kind = "arg" + self.take()[1:]
        variable, domain = None, None
        if self.peek() == "_":
            self.take()
            s = _Parser(self.group()).statements()[0]
            variable, domain = s.sides[0], s.sides[1] if s.relations else None
        return Operator(kind, variable, self.term() if kind == "lim" else self.sum(), domain)

    def _cases(self, t):
        self.take("{")
        while self.take() != "}":
            pass
        rows = []
        while self.peek() != r"\end":
            if self.peek() in ("ROW", "&"):
                self.take()
                continue
            node, conditions = self.sum(), []
            while self.peek() not in ("ROW", r"\end"):
                if isinstance(self.peek(), tuple) or self.peek() in (",", "QUAD", "."):
                    self.take()
                else:
                    conditions.append(self.chain(Statement([self.sum()], [])))
            rows.append((node, conditions))
        self.take()
        while self.take() != "}":
            pass
        return Cases(rows)


def _plain(tokens):
    "A subscript as text, the way the check spells it: λ_0, w_(j→+1), E_q(w)"
    text = "".join(x[1] if isinstance(x, tuple) else _LETTERS.get(x[1:], {r"\to": "→", r"\rm": "", r"\mathcal": ""}.get(x, x[1:])) if x.startswith("\\") else x for x in tokens)
    return text.replace("{", "").replace("}", "")


def _indices(tokens):
    "A subscript as index expressions; empty where it is only part of the name"
    try:
        parser = _Parser(list(tokens))
        found = []
        while parser.peek() is not None:
            if parser.peek() == ",":
                parser.take()
            elif re.fullmatch(r"[a-z]", str(parser.peek())) and parser.peek(1) not in ("+", "-", "_"):
                found.append(parser._name(parser.take()))
            else:
                found.append(parser.sum())
        return found
    except (SyntaxError, AttributeError):
        return []


def read_formula(latex):
    "The statements of a displayed formula"
    return _Parser(_tokens(latex)).statements()


_FUNCTIONS["abs"] = torch.abs
_FUNCTIONS["norm"] = lambda x: x.norm(dim=-1)

# ------------------------------------------------------------------ check
_DISPLAY = re.compile(r"\$\$(.*?)\$\$", re.S)
_TAG = re.compile(r"\\tag\{([^}]*)\}")


def displayed_formulas(path):
    "tag → LaTeX of every displayed equation of a notebook"
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    text = "\n".join(re.sub(r"(?m)^> ?", "", "".join(c["source"])) for c in cells if c["cell_type"] == "markdown")
    return {_TAG.search(body)[1]: body.strip() for body in _DISPLAY.findall(text) if _TAG.search(body)}


def _check(latex, name, after, define, tolerance, bindings, value=None):
    at = Scope({**_CONSTANTS, **bindings})
    compared, assigned = 0, set()
    for statement in read_formula(latex):
        if not statement.relations and value is not None:
            _compare("=", statement.sides[0].value(at), value, tolerance, name)
            compared += 1
        compared += _check_statement(statement, at, name, after, assigned, tolerance, define)
        for relation, side in zip(statement.relations[:1], statement.sides[:1]):
            if relation == "←" or (relation == "=" and isinstance(side, Name) and side.full in define):
                at = at.but(**{side.full: statement.sides[1].value(at)})
    if missing := set(after) - assigned:
        raise AssertionError(f"{name} assigns nothing to {', '.join(missing)}")
    if not compared:
        raise AssertionError(f"{name} compares nothing")


def _check_statement(statement, at, name, after, assigned, tolerance, define):
    compared = 0
    limits = [c for c in statement.conditions if "→" in c.relations]
    if limits:
        names = {c.sides[0].full: float(c.sides[1].value(at)) for c in limits}
        at = at.but(**{k: _number(1 / at["near"] if v == math.inf else v + at["near"]) for k, v in names.items()})
    mask = None
    for condition in statement.conditions:
        if "→" not in condition.relations:
            holds = condition.mask(at)
            mask = holds if mask is None else mask & holds
    for a, relation, b in zip(statement.sides, statement.relations, statement.sides[1:]):
        if relation == "←":
            if a.full in after:
                assigned.add(a.full)
                _compare("=", after[a.full], b.value(at), tolerance, name, mask)
                compared += 1
            continue
        if relation == "=" and isinstance(a, Name) and a.full in define:
            continue
        _check_pair(a, "=" if relation == "→" else relation, b, at, tolerance, name, mask)
        compared += 1
    return compared


def _check_pair(a, relation, b, at, tolerance, name, mask):
    if tolerance.shrink and "O" in str(b):
        return _check_order(a, b, at, tolerance, name)
    printed = None
    if relation == "≈":
        digits = re.search(r"Number\(text='(\d*)\.?(\d*)'\)", str(b))
        if isinstance(b, Number):
            printed = 0.51 * 10 ** -len(digits[2])
    return _compare(relation, a.value(at), b.value(at), tolerance, name, mask, printed)


def _check_order(a, b, at, tolerance, name):
    ((symbol, values),) = tolerance.shrink.items()
    ratios = []
    for v in values:
        asked = []

        def order(x):
            asked.append(x)
            return 0 * x

        here = at.but(**{symbol: _number(v), "O": order})
        rest = a.value(here) - b.value(here)
        ratios.append((rest / asked[0]).abs().max())
    if not all(0.2 < r / ratios[0] < 5 for r in ratios) or not 1e-3 < ratios[0] < 1e3:
        raise AssertionError(f"{name}: the remainder is not of the order stated: quotients {[f'{r:.2g}' for r in ratios]}")


class Display:
    """The displayed equations of one page, to be checked as they stand there

    `shown = Display("bernoulli.ipynb")`, then `shown.check("B4", λ=lam, p=prob_from_natural(lam))`."""

    def __init__(self, page):
        path = Path(page)
        if not path.exists():
            path = Path(__file__).parents[2] / "nbs" / "math" / page
        self.page, self.formulas = Path(page).stem, displayed_formulas(path)

    def check(self, tag, after=None, define=(), rtol=1e-6, atol=1e-8, tight=1e-2, average=False, shrink=None, approx=1e-2, near=1e-6, value=None, **symbols):
        if tag not in self.formulas:
            raise KeyError(f"{self.page} displays no equation ({tag}); it has {', '.join(self.formulas)}")
        tolerance = Tolerance(rtol, atol, tight, average, shrink or {}, approx)
        symbols["near"] = near
        symbols = {k: v if callable(v) or isinstance(v, (Rule, Over, Law, list, range, str)) else _number(v) for k, v in symbols.items()}
        _check(self.formulas[tag], f"({tag})", after or {}, define, tolerance, symbols, value)
