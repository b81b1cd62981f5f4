package capability

import (
	"fmt"
	"slices"
	"strings"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Limits of what may be granted to one instance. They keep a record small enough to travel by the thousand.
const (
	MaxGrants      = 32
	MaxPermissions = 128 // of one grant
)

// Grant is a grant as it travels.
type Grant = pb.Grant

// Normalize returns grants in their one form, sorted and without repetition, or says what is wrong with them. Two
// grants of one capability are one with the permissions of both.
func Normalize(grants []*Grant) ([]*Grant, error) {
	all := Assign(nil, grants)
	if len(all) > MaxGrants {
		return nil, fmt.Errorf("%d capabilities: at most %d for one instance", len(all), MaxGrants)
	}
	for _, g := range all {
		switch {
		case g.GetCapabilityId() == "":
			return nil, fmt.Errorf("a grant names no capability")
		case len(g.GetPermissions()) == 0:
			return nil, fmt.Errorf("the grant of %q has no permission", g.GetCapabilityId())
		case len(g.GetPermissions()) > MaxPermissions:
			return nil, fmt.Errorf("the grant of %q has %d permissions: at most %d", g.GetCapabilityId(), len(g.GetPermissions()), MaxPermissions)
		}
		for _, p := range g.GetPermissions() {
			if err := ValidatePermission(g.GetProviderType(), p); err != nil {
				return nil, fmt.Errorf("capability %q: %w", g.GetCapabilityId(), err)
			}
		}
	}
	return all, nil
}

// Assign returns grants with others added. What is given stays as it is: records share it.
func Assign(have, add []*Grant) []*Grant {
	all := slices.Clone(have)
	for _, g := range add {
		n := slices.IndexFunc(all, func(h *Grant) bool { return h.GetCapabilityId() == g.GetCapabilityId() })
		if n < 0 {
			all = append(all, grantOf(g, g.GetPermissions()))
			continue
		}
		merged := grantOf(g, slices.Concat(all[n].GetPermissions(), g.GetPermissions()))
		all[n] = merged
	}
	slices.SortFunc(all, func(a, b *Grant) int { return strings.Compare(a.GetCapabilityId(), b.GetCapabilityId()) })
	return all
}

// Revoke returns grants without others: without the permissions that those name, or where they name none without the
// whole grant. It never widens what is left: who takes the last host from a grant that is narrowed to
// hosts takes the right to ask at all.
func Revoke(have, take []*Grant) []*Grant {
	var left []*Grant
	for _, h := range have {
		for _, t := range take {
			if h == nil || t.GetCapabilityId() != h.GetCapabilityId() {
				continue
			}
			h = without(h, t.GetPermissions())
		}
		if h != nil {
			left = append(left, h)
		}
	}
	return left
}

func without(g *Grant, permissions []string) *Grant {
	if len(permissions) == 0 {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(g.GetPermissions()), func(p string) bool {
		return slices.ContainsFunc(permissions, func(taken string) bool { return samePermission(p, taken) })
	})
	if namesHost(g.GetPermissions()) && !namesHost(left) {
		left = slices.DeleteFunc(left, func(p string) bool { return p == HTTPAsk })
	}
	if len(left) == 0 {
		return nil
	}
	return grantOf(g, left)
}

// samePermission says whether two permissions are one, of a host also where it is spelled in two ways.
func samePermission(a, b string) bool {
	if a == b {
		return true
	}
	a, isHost := strings.CutPrefix(a, httpHost)
	b, areHosts := strings.CutPrefix(b, httpHost)
	if !isHost || !areHosts {
		return false
	}
	one, err := parseHost(a)
	other, otherErr := parseHost(b)
	return err == nil && otherErr == nil && one == other
}

func namesHost(permissions []string) bool {
	return slices.ContainsFunc(permissions, func(p string) bool { return strings.HasPrefix(p, httpHost) })
}

func grantOf(g *Grant, permissions []string) *Grant {
	permissions = slices.Compact(slices.Sorted(slices.Values(permissions)))
	return &Grant{CapabilityId: g.GetCapabilityId(), ProviderType: g.GetProviderType(), Permissions: permissions}
}

// ParseGrant reads ID=PERM[,PERM...] as the command line has it. The type is not in it: the provider knows it.
func ParseGrant(s string) (*Grant, error) {
	id, list, ok := strings.Cut(s, "=")
	if !ok || id == "" || list == "" {
		return nil, fmt.Errorf("%q: want ID=PERMISSION[,PERMISSION...], such as kv=kv:read,kv:write", s)
	}
	g := &Grant{CapabilityId: id}
	for p := range strings.SplitSeq(list, ",") {
		if p = strings.TrimSpace(p); p == "" {
			return nil, fmt.Errorf("%q has an empty permission", s)
		}
		g.Permissions = append(g.Permissions, p)
	}
	return g, nil
}
