package api

import (
	"maps"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Provider is one capability provider.
type Provider struct {
	ProviderID   string   `json:"provider_id"`
	ProviderType string   `json:"provider_type"`
	Backend      string   `json:"backend"` // without secrets
	State        string   `json:"state"`
	Nodes        []string `json:"nodes"`
	Version      string   `json:"version"`

	// The rest of its configuration.
	Config map[string]string `json:"config"`
	// The labels that its nodes carry.
	On map[string]string `json:"on"`
	// What is wrong with it, by the name of the node that says so.
	Failures map[string]string `json:"failures"`
	// What guests of all nodes asked of it in the last minute.
	Calls CallRates `json:"calls"`
}

// FromProvider returns the JSON shape of a provider.
func FromProvider(s *pb.ProviderStatus) Provider {
	p := s.GetProvider()
	config := maps.Clone(notNil(p.GetConfig()))
	delete(config, "backend")
	return Provider{
		ProviderID:   p.GetProviderId(),
		ProviderType: p.GetProviderType(),
		Backend:      p.GetConfig()["backend"],
		State:        word(p.GetState().String(), "PROVIDER_STATE_"),
		Nodes:        append([]string{}, s.GetNodes()...),
		Version:      p.GetVersion(),
		Config:       config,
		On:           notNil(p.GetConstraints()),
		Failures:     notNil(s.GetFailures()),
		Calls:        fromCallRates(s.GetCalls()),
	}
}

// FromProviders returns the JSON shapes of providers, in their order; never nil.
func FromProviders(all []*pb.ProviderStatus) []Provider {
	shapes := make([]Provider, 0, len(all))
	for _, p := range all {
		shapes = append(shapes, FromProvider(p))
	}
	return shapes
}

// FromGrants returns the JSON shapes of an instance's grants, in their order; never nil.
func FromGrants(all []*pb.Grant) []Capability {
	shapes := make([]Capability, 0, len(all))
	for _, g := range all {
		shapes = append(shapes, Capability{
			CapabilityID: g.GetCapabilityId(), ProviderType: g.GetProviderType(), Permissions: append([]string{}, g.GetPermissions()...),
		})
	}
	return shapes
}
