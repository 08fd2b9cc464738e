package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// baseOf is what ko puts the program on, for each platform: the licences of what the program is made of, and nothing else.
// Most of them ask to be with every copy of it.
func baseOf(licences string, c commit) (v1.ImageIndex, error) {
	content, err := pack(os.DirFS(licences), c)
	if err != nil {
		return nil, fmt.Errorf("packing the licences: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range []string{"amd64", "arm64"} {
		image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
		platform := v1.Platform{OS: "linux", Architecture: architecture}
		config := &v1.ConfigFile{OS: platform.OS, Architecture: architecture, RootFS: v1.RootFS{Type: "layers"}}
		if image, err = mutate.ConfigFile(image, config); err != nil {
			return nil, err
		}
		image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{
			Created: c.created, CreatedBy: "make images", Comment: "licences of what the program is made of, at /licenses",
		}})
		if err != nil {
			return nil, err
		}
		base = mutate.AppendManifests(base, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	return base, nil
}

// pack is a tar of the folder as /licenses: in the order of names, of nobody, from the time of the commit.
func pack(folder fs.FS, c commit) ([]byte, error) {
	var buffer bytes.Buffer
	w, files := tar.NewWriter(&buffer), 0
	err := fs.WalkDir(folder, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		header := &tar.Header{Name: path.Join("licenses", file), ModTime: c.created.Time, Mode: 0o555, Typeflag: tar.TypeDir}
		if entry.IsDir() {
			return w.WriteHeader(header)
		}
		content, err := fs.ReadFile(folder, file)
		if err != nil {
			return err
		}
		files++
		header.Typeflag, header.Mode, header.Size = tar.TypeReg, 0o444, int64(len(content))
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err == nil && files == 0 {
		err = errors.New("there is none")
	}
	if err != nil {
		return nil, err
	}
	return buffer.Bytes(), w.Close()
}
