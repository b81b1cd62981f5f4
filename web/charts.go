package web

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// chartWide and chartHigh are the space that a chart's lines are drawn in; the page stretches it.
	chartWide, chartHigh = 300.0, 60.0
	// mostSlots bounds what a chart is drawn from.
	mostSlots = 720
)

// chart is one small picture of the last minutes.
type chart struct {
	Title  string
	Lines  []chartLine
	Area   string // the path below the first line
	Points string // what the page reads out, as JSON
	Now    string // the newest values in words
	Label  string // the whole of it in words
	Since  string // how far it goes back
}

// chartLine is one line of it.
type chartLine struct {
	Name   string
	Look   string // "", "second" or "alarm"
	Path   string
	values []float64 // NaN where nothing is known
}

func loadCharts(m *moment, _ question) (any, error) {
	past, err := m.History()
	if rpc.CodeOf(err) == rpc.InvalidRequest { // nothing is asked that could be wrong: the leader's version knows no history
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return charts(past), nil
}

// charts draws what happened. It is pure.
func charts(past api.History) []chart {
	t := gridOf(past)
	if t.slots < 2 {
		return nil
	}
	count := func(names ...string) func(api.Sample) float64 {
		return func(s api.Sample) float64 {
			n := 0.0
			for _, name := range names {
				n += float64(s.Instances[name])
			}
			return n
		}
	}
	unit, scale := "ms", 1e3
	if t.most(func(s api.Sample) float64 { return value(s.Calls.LatencyP99Seconds) }) < 1e-3 {
		unit, scale = "µs", 1e6
	}
	latency := func(of func(api.CallRates) *float64) func(api.Sample) float64 {
		return func(s api.Sample) float64 {
			if v := of(s.Calls); v != nil {
				return *v * scale
			}
			return math.NaN()
		}
	}
	all := []chart{
		t.draw("Instances", "", true,
			line("running", "", count("running")), line("restarting", "second", count("restarting", "starting"))),
		t.draw("Starts and crashes", "/s", false,
			line("starts", "", func(s api.Sample) float64 { return s.StartsPerSecond }),
			line("crashes", "alarm", func(s api.Sample) float64 { return s.CrashesPerSecond })),
		t.draw("Capability calls", "/s", true,
			line("calls", "", func(s api.Sample) float64 { return s.Calls.CallsPerSecond }),
			line("errors", "alarm", func(s api.Sample) float64 { return s.Calls.ErrorsPerSecond })),
		t.draw("Time of a call", " "+unit, false,
			line("p50", "", latency(func(c api.CallRates) *float64 { return c.LatencyP50Seconds })),
			line("p99", "second", latency(func(c api.CallRates) *float64 { return c.LatencyP99Seconds }))),
	}
	if guests := func(s api.Sample) float64 { return s.GuestCPUUsedCores }; t.most(guests) > 0 { // else nothing computes, or the leader's version does not know
		all = append(all, t.draw("Processors that guests use", "", true, line("guests", "", guests)))
	}
	return all
}

func value(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

// wanted is a line to be drawn.
type wanted struct {
	name, look string
	of         func(api.Sample) float64
}

func line(name, look string, of func(api.Sample) float64) wanted {
	return wanted{name, look, of}
}

// grid has each sample at its place in time: where one is missing there is a gap, and not a line across.
type grid struct {
	from    time.Time // of the first slot
	step    time.Duration
	slots   int
	samples map[int]api.Sample
}

func gridOf(past api.History) grid {
	step := time.Duration(past.PeriodSeconds * float64(time.Second))
	if len(past.Samples) == 0 || step <= 0 {
		return grid{}
	}
	window := time.Duration(past.WindowSeconds * float64(time.Second))
	t := grid{step: step, slots: min(int(window/step), mostSlots), samples: map[int]api.Sample{}}
	last := past.Samples[len(past.Samples)-1].Time
	if last == nil {
		return grid{}
	}
	t.from = last.Add(-time.Duration(t.slots-1) * step)
	for _, s := range past.Samples {
		if s.Time == nil {
			continue
		}
		if at := int(math.Round(float64(s.Time.Sub(t.from)) / float64(step))); at >= 0 && at < t.slots {
			t.samples[at] = s
		}
	}
	return t
}

func (t grid) most(of func(api.Sample) float64) float64 {
	most := 0.0
	for _, s := range t.samples {
		if v := of(s); v > most {
			most = v
		}
	}
	return most
}

func (t grid) draw(title, unit string, area bool, lines ...wanted) chart {
	c := chart{Title: title, Since: age(time.Duration(t.slots)*t.step) + " ago"}
	top := 0.0
	for _, l := range lines {
		top = max(top, t.most(l.of))
	}
	top = max(top*1.08, 1e-9)
	for _, l := range lines {
		one := chartLine{Name: l.name, Look: l.look, values: make([]float64, t.slots)}
		for at := range one.values {
			one.values[at] = math.NaN()
			if s, ok := t.samples[at]; ok {
				one.values[at] = l.of(s)
			}
		}
		one.Path = path(one.values, top)
		c.Lines = append(c.Lines, one)
	}
	if area {
		c.Area = below(c.Lines[0].values, top)
	}
	c.Points = t.points(c.Lines, unit)
	var now, whole []string
	for _, l := range c.Lines {
		newest, least, most := span3(l.values)
		if math.IsNaN(newest) {
			continue
		}
		now = append(now, l.Name+" "+brief(newest)+unit)
		whole = append(whole, fmt.Sprintf("%s now %s%s, least %s%s, most %s%s", l.Name, brief(newest), unit, brief(least), unit, brief(most), unit))
	}
	c.Now = strings.Join(now, ", ")
	c.Label = title + " of the last " + age(time.Duration(t.slots)*t.step) + ": " + strings.Join(whole, "; ")
	if len(whole) == 0 {
		c.Now, c.Label = "none", title+": none"
	}
	return c
}

// points is what the page needs to read a chart out.
func (t grid) points(lines []chartLine, unit string) string {
	type series struct {
		Name   string    `json:"name"`
		Values []*brief3 `json:"values"`
	}
	shape := struct {
		From   time.Time `json:"from"`
		Step   float64   `json:"step"`
		Unit   string    `json:"unit"`
		Series []series  `json:"series"`
	}{t.from, t.step.Seconds(), unit, nil}
	for _, l := range lines {
		one := series{Name: l.Name}
		for _, v := range l.values {
			if math.IsNaN(v) {
				one.Values = append(one.Values, nil)
				continue
			}
			b := brief3(v)
			one.Values = append(one.Values, &b)
		}
		shape.Series = append(shape.Series, one)
	}
	out, err := json.Marshal(shape)
	if err != nil {
		return `{"series":[{"values":[]}]}`
	}
	return string(out)
}

// brief3 is a number that is written with three digits.
type brief3 float64

// MarshalJSON writes it.
func (b brief3) MarshalJSON() ([]byte, error) { return []byte(brief(float64(b))), nil }

// brief writes a number with about three digits, and never with an exponent.
func brief(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "0"
	case v == math.Trunc(v) || math.Abs(v) >= 100:
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	case math.Abs(v) >= 10:
		return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
	}
	return strings.TrimRight(strings.TrimRight(strconv.FormatFloat(v, 'f', 2, 64), "0"), ".")
}

// span3 returns the newest, the least and the most of what is known.
func span3(values []float64) (newest, least, most float64) {
	newest, least, most = math.NaN(), math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if !math.IsNaN(v) {
			newest, least, most = v, min(least, v), max(most, v)
		}
	}
	return newest, least, most
}

func place(at, slots int, v, top float64) string {
	x := chartWide * float64(at) / float64(slots-1)
	y := chartHigh * (1 - v/top)
	return strconv.FormatFloat(x, 'f', 1, 64) + " " + strconv.FormatFloat(y, 'f', 1, 64)
}

// path draws the line, with gaps where nothing is known.
func path(values []float64, top float64) string {
	var d strings.Builder
	on := false
	for at, v := range values {
		if math.IsNaN(v) {
			on = false
			continue
		}
		if on {
			d.WriteByte('L')
			d.WriteString(place(at, len(values), v, top))
		} else {
			d.WriteByte('M')
			d.WriteString(place(at, len(values), v, top))
			d.WriteString("h.1") // so that a point alone is seen
		}
		on = true
	}
	return d.String()
}

// below draws the area below the line.
func below(values []float64, top float64) string {
	var d strings.Builder
	first := -1
	for at := 0; at <= len(values); at++ {
		known := at < len(values) && !math.IsNaN(values[at])
		switch {
		case known && first < 0:
			first = at
			d.WriteString("M" + place(at, len(values), 0, top) + "L" + place(at, len(values), values[at], top))
		case known:
			d.WriteString("L" + place(at, len(values), values[at], top))
		case first >= 0:
			d.WriteString("L" + place(at-1, len(values), 0, top) + "Z")
			first = -1
		}
	}
	return d.String()
}
