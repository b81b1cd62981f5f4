package meter

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// large returns the path of a module that testdata/large/package-lock.json names.
func large(t *testing.T, path ...string) string {
	t.Helper()
	file := filepath.Join(append([]string{"testdata", "large", "node_modules"}, path...)...)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%v: run scripts/setup.sh, which gets it", err)
	}
	return file
}

// CPython, with its library in the module, computes the same. It takes 7 s, and a minute with the race detector: see make large.
func TestCPythonDoesTheSame(t *testing.T) {
	if os.Getenv("WASMATRIX_TEST_LARGE") == "" {
		t.Skip("make large runs it")
	}
	const script = `
import collections, decimal, hashlib, itertools, json, math, random, re, sys, zlib

class Tree:
    def __init__(self, depth):
        self.parts = [Tree(depth - 1) for _ in range(3)] if depth else []
    def __len__(self):
        return 1 + sum(map(len, self.parts))

def primes(most):
    found = []
    for n in itertools.count(2):
        if n > most: return found
        if all(n % p for p in itertools.takewhile(lambda p: p * p <= n, found)): found.append(n)

random.seed(7)
print(sys.version)
print(len(Tree(7)), primes(20000)[-5:])
text = json.dumps([{"n": n, "root": math.sqrt(n), "word": "".join(random.choices("abcdefgh", k=9))} for n in range(5000)])
print(len(text), hashlib.sha256(text.encode()).hexdigest(), len(zlib.compress(text.encode())))
print(collections.Counter(re.findall(r"[aeiou]+", text)).most_common(5))
print(decimal.getcontext().copy().sqrt(decimal.Decimal(2)), sum(each["n"] for each in json.loads(text)))
try:
    (lambda f: f(f))(lambda f: f(f))
except RecursionError as e:
    print(type(e).__name__)
print(10 ** 500 // 7 ** 300)
sys.exit(3)
`
	p := newProgram(t)
	p.compile(t, large(t, "@antonz", "python-wasi", "dist", "python.wasm"))
	before, after := p.run(t, p.plain, "python", "-c", script), p.run(t, p.metered, "python", "-c", script)
	if before != after {
		t.Errorf("\n%v\nbefore,\n%v\nafter", before, after)
	}
	if !strings.HasPrefix(after.output, "3.12.0") || !strings.Contains(after.output, "RecursionError") || after.end != "exit code 3" {
		t.Errorf("it ends with %v", after)
	}
}

// QuickJS, called by its exports, computes the same.
func TestQuickJSDoesTheSame(t *testing.T) {
	const script = `
const counts = new Map();
class Shape { constructor(n) { this.n = n; } get area() { return Math.sqrt(this.n) * 3; } }
function* numbers(most) { for (let n = 0; n < most; n++) yield n; }
for (const n of numbers(20000)) { const key = "key " + (n * 7919) % 311; counts.set(key, (counts.get(key) || 0) + n); }
const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2);
const shapes = Array.from({length: 5000}, (_, n) => new Shape(n * 7919 % 5003)).sort((a, b) => a.area - b.area);
let caught = "";
try { null.nothing } catch (e) { caught = e.message }
JSON.stringify({counts: [...counts].slice(0, 5), fib: fib(22), area: shapes.reduce((sum, s) => sum + s.area, 0), big: (2n ** 700n % 1000007n).toString(),
	words: "the quick brown fox ".repeat(300).match(/\b\w*o\w*\b/g).length, caught, parsed: JSON.parse("[1,{\"a\":[2.5e3]}]")[1].a[0], date: new Date(0).toISOString()});
`
	wasm, err := os.ReadFile(large(t, "quickjs-wasi", "quickjs.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	var answers []string
	for _, code := range [][]byte{wasm, rewritten(t, wasm)} {
		answers = append(answers, evaluate(t, code, script))
	}
	if answers[0] != answers[1] || !strings.Contains(answers[1], `"fib":17711`) {
		t.Errorf("%s before, %s after", answers[0], answers[1])
	}
}

// evaluate has QuickJS evaluate a script, and returns its value and the memory afterwards.
func evaluate(t *testing.T, wasm []byte, script string) string {
	t.Helper()
	p := newProgram(t)
	ctx := t.Context()
	host := p.runtime.NewHostModuleBuilder("env")
	i32 := api.ValueTypeI32
	for name, params := range map[string]int{"host_get_timezone_offset": 2, "host_interrupt": 0, "host_promise_rejection": 3, "host_module_normalize": 2, "host_module_load": 2, "host_call": 5} {
		results := []api.ValueType{i32}
		if name == "host_promise_rejection" {
			results = nil
		}
		var types []api.ValueType
		for range params {
			types = append(types, i32)
		}
		host.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
			if len(stack) > 0 {
				stack[0] = 0 // nobody interrupts, and it is UTC
			}
		}), types, results).Export(name)
	}
	if _, err := host.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	m, err := p.runtime.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	call := func(name string, args ...uint64) uint32 {
		t.Helper()
		results, err := m.ExportedFunction(name).Call(ctx, args...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return uint32(append(results, 0)[0])
	}
	text := func(s string) uint64 {
		at := call("wasm_malloc", uint64(len(s)+1))
		m.Memory().Write(at, append([]byte(s), 0))
		return uint64(at)
	}
	call("_initialize")
	call("qjs_init")
	value := call("qjs_eval", text(script), uint64(len(script)), text("script.js"), 0)
	length := call("wasm_malloc", 4)
	at := call("qjs_get_string_len", uint64(value), uint64(length))
	size, _ := m.Memory().Read(length, 4)
	said, _ := m.Memory().Read(at, binary.LittleEndian.Uint32(size))
	return fmt.Sprintf("%s\n%s", said, digest(m.Memory()))
}
