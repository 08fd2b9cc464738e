package mutate

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubejson "k8s.io/apimachinery/pkg/util/json" // keeps whole numbers whole
)

// Pod is the pod of a review, read no further than it is looked at: of the spec, what Mark does not ask for is a
// jsontext.Value, as it came; managed fields are left out.
type Pod struct {
	kind   string
	object map[string]any
	err    error // what is wrong within the object; the review is well-formed all the same
}

var errNoObject = errors.New("not an object")

// UnmarshalJSONFrom reads a pod, in the one pass in which the review around it is read.
func (p *Pod) UnmarshalJSONFrom(from *jsontext.Decoder) error {
	p.object = map[string]any{}
	err := members(from, func(name string) error {
		if from.PeekKind() != '{' || name != "metadata" && name != "spec" {
			return p.read(from, p.object, name)
		}
		part := map[string]any{}
		p.object[name] = part
		return members(from, func(member string) error {
			switch name + "." + member {
			case "metadata.managedFields": // as large as the rest of the pod, and no part of the job spec
				return from.SkipValue()
			case "spec.nodeName", "spec.serviceAccountName", "spec.schedulingGates":
				return p.read(from, part, member)
			}
			if name == "metadata" {
				return p.read(from, part, member)
			}
			raw, err := from.ReadValue()
			part[member] = raw.Clone()
			return err
		})
	})
	p.kind, _ = p.object["kind"].(string)
	return err
}

// read reads a member's value into an object, as Kubernetes does.
func (p *Pod) read(from *jsontext.Decoder, object map[string]any, name string) error {
	raw, err := from.ReadValue()
	if err != nil {
		return err
	}
	var value any
	if err := kubejson.Unmarshal(raw, &value); err != nil {
		p.err = err
	}
	object[name] = value
	return nil
}

// members calls each for the members of an object, which is to read the value.
func members(from *jsontext.Decoder, each func(name string) error) error {
	if from.PeekKind() != '{' {
		return errNoObject
	}
	if _, err := from.ReadToken(); err != nil {
		return err
	}
	for from.PeekKind() != '}' {
		name, err := from.ReadToken()
		if err != nil {
			return err
		}
		if err := each(name.String()); err != nil {
			return err
		}
	}
	_, err := from.ReadToken()
	return err
}

// unstructured is the pod for Mark.
func (p *Pod) unstructured() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: p.object}
}
