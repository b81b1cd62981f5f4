package web

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
)

// past returns samples of that many running instances, a period of 5 s apart; none where it is negative.
func past(slots int, running ...int) api.History {
	h := api.History{PeriodSeconds: 5, WindowSeconds: 5 * float64(slots)}
	for n, count := range running {
		at := noon.Add(time.Duration(n) * 5 * time.Second)
		if count >= 0 {
			h.Samples = append(h.Samples, api.Sample{Time: &at, Instances: map[string]uint32{"running": uint32(count)}})
		}
	}
	return h
}

func TestChartHasEachSampleAtItsTimeAndAGapWhereOneIsMissing(t *testing.T) {
	computing := past(4, 0, 4, -1, 2)
	all := charts(computing)
	if len(all) != 4 {
		t.Fatalf("%d charts", len(all))
	}
	running := all[0]
	if got := running.Lines[0].Path; strings.Count(got, "M") != 2 || !strings.HasPrefix(got, "M0.0 60.0") || !strings.Contains(got, "L100.0 ") || !strings.Contains(got, "M300.0 ") {
		t.Errorf("the line is %s", got)
	}
	if running.Now != "running 2, restarting 0" || !strings.Contains(running.Label, "least 0, most 4") {
		t.Errorf("%q, %q", running.Now, running.Label)
	}
	var points struct {
		Series []struct {
			Name   string
			Values []*float64
		}
	}
	if err := json.Unmarshal([]byte(running.Points), &points); err != nil {
		t.Fatal(err)
	}
	if v := points.Series[0].Values; len(v) != 4 || *v[1] != 4 || v[2] != nil || *v[3] != 2 {
		t.Errorf("read out is %s", running.Points)
	}
	for n := range computing.Samples {
		computing.Samples[n].GuestCPUUsedCores = 0.5
	}
	if all := charts(computing); len(all) != 5 || all[4].Now != "guests 0.5" {
		t.Errorf("of guests that compute: %+v", all)
	}
	if latency := all[3]; latency.Now != "none" || latency.Lines[0].Path != "" {
		t.Errorf("without calls their time is %+v", latency)
	}
}

func TestChartOfAYoungClusterBeginsAtTheRight(t *testing.T) {
	if got := charts(past(100, 1, 1))[0].Lines[0].Path; !strings.HasPrefix(got, "M297.0 ") {
		t.Errorf("%s", got)
	}
	for name, h := range map[string]api.History{"nothing": {}, "no period": {Samples: past(4, 1).Samples}, "no time": {PeriodSeconds: 5, WindowSeconds: 20, Samples: []api.Sample{{}}}} {
		if got := charts(h); got != nil {
			t.Errorf("of %s: %+v", name, got)
		}
	}
}

func TestNumbersAreBrief(t *testing.T) {
	for given, want := range map[float64]string{0: "0", 3: "3", 0.2: "0.2", 1.0 / 3: "0.33", 12.34: "12.3", 12.02: "12", 1234.5: "1235", 0.004: "0", 5e-324: "0"} {
		if got := brief(given); got != want {
			t.Errorf("%v is %q, want %q", given, got, want)
		}
	}
}
