// Package localpath provisions hostPath volumes in one directory of one node.
package localpath

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

const (
	provisionerName     = "postern.dev/local-path"
	provisionedBy       = "pv.kubernetes.io/provisioned-by"
	wantedProvisioner   = "volume.kubernetes.io/storage-provisioner"
	selectedNode        = "volume.kubernetes.io/selected-node"
	owner               = 1000 // uid and gid of every directory: a volume is not writable for just anyone
	directoryMode       = 0o755
	claimKind, diskKind = "claim", "volume"
)

// key names one object to look at: a claim that may want a volume, or a volume that may be done with.
type key struct{ kind, namespace, name string }

type provisioner struct {
	client    kubernetes.Interface
	node      string
	directory string
	queue     workqueue.TypedRateLimitingInterface[key]
}

// Run provisions until a signal.
func Run(args []string) error {
	flags := flag.NewFlagSet("local-path", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API")
	node := flags.String("node", "", "the node whose directory this is")
	directory := flags.String("directory", "", "where volumes are made")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *kubeconfig == "" || *node == "" || !filepath.IsAbs(*directory) {
		return errors.New("--kubeconfig, --node and an absolute --directory are needed")
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[key](100*time.Millisecond, 10*time.Second)
	p := &provisioner{client, *node, *directory, workqueue.NewTypedRateLimitingQueue(limiter)}
	return p.run(ctx)
}

func (p *provisioner) run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(p.client, time.Minute)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	volumes := factory.Core().V1().PersistentVolumes().Informer()
	if _, err := claims.AddEventHandler(p.enqueue(claimKind)); err != nil {
		return err
	}
	if _, err := volumes.AddEventHandler(p.enqueue(diskKind)); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	go func() { <-ctx.Done(); p.queue.ShutDown() }()
	for {
		item, shutdown := p.queue.Get()
		if shutdown {
			return nil
		}
		if err := p.handle(ctx, item); err != nil {
			log.Printf("%s %s: %v", item.kind, strings.TrimPrefix(item.namespace+"/"+item.name, "/"), err)
			p.queue.AddRateLimited(item)
		} else {
			p.queue.Forget(item)
		}
		p.queue.Done(item)
	}
}

func (p *provisioner) enqueue(kind string) cache.ResourceEventHandler {
	add := func(object any) {
		if accessor, ok := object.(meta.Object); ok {
			p.queue.Add(key{kind, accessor.GetNamespace(), accessor.GetName()})
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, object any) { add(object) }}
}

// handle reads the object afresh, so that an informer's lag can only cost a retry.
func (p *provisioner) handle(ctx context.Context, item key) error {
	if item.kind == claimKind {
		claim, err := p.client.CoreV1().PersistentVolumeClaims(item.namespace).Get(ctx, item.name, meta.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return p.provision(ctx, claim)
	}
	volume, err := p.client.CoreV1().PersistentVolumes().Get(ctx, item.name, meta.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.reclaim(ctx, volume)
}

func (p *provisioner) provision(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	ours := claim.Annotations[wantedProvisioner] == provisionerName
	if !ours || claim.DeletionTimestamp != nil || claim.Spec.VolumeName != "" || claim.Spec.StorageClassName == nil {
		return nil
	}
	class, err := p.client.StorageV1().StorageClasses().Get(ctx, *claim.Spec.StorageClassName, meta.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the claim stays Pending; the resync looks again
	}
	if err != nil {
		return err
	}
	node := claim.Annotations[selectedNode]
	immediate := class.VolumeBindingMode == nil || *class.VolumeBindingMode == storage.VolumeBindingImmediate
	if node == "" && immediate {
		node = p.node
	}
	if node != p.node {
		return nil // no consumer yet, or another node's
	}
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(p.directory, name)
	if err := makeDirectory(path); err != nil {
		return err
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, p.volume(name, path, claim, class), meta.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func makeDirectory(path string) error {
	if err := os.MkdirAll(path, directoryMode); err != nil {
		return err
	}
	if err := os.Chmod(path, directoryMode); err != nil { // whatever the umask was
		return err
	}
	return os.Chown(path, owner, owner)
}

func (p *provisioner) volume(name, path string, claim *core.PersistentVolumeClaim, class *storage.StorageClass) *core.PersistentVolume {
	policy := core.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	hostPathType := core.HostPathDirectory
	here := core.NodeSelectorRequirement{Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{p.node}}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisionerName}},
		Spec: core.PersistentVolumeSpec{
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: policy,
			ClaimRef: &core.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: core.PersistentVolumeSource{
				HostPath: &core.HostPathVolumeSource{Path: path, Type: &hostPathType},
			},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{
				NodeSelectorTerms: []core.NodeSelectorTerm{{MatchExpressions: []core.NodeSelectorRequirement{here}}},
			}},
		},
	}
}

// reclaim removes what is released: the directory first, so that a failure is tried again.
func (p *provisioner) reclaim(ctx context.Context, volume *core.PersistentVolume) error {
	ours := volume.Annotations[provisionedBy] == provisionerName
	done := volume.Status.Phase == core.VolumeReleased &&
		volume.Spec.PersistentVolumeReclaimPolicy == core.PersistentVolumeReclaimDelete
	if !ours || !done || volume.Spec.HostPath == nil {
		return nil
	}
	path := filepath.Clean(volume.Spec.HostPath.Path)
	if filepath.Dir(path) != filepath.Clean(p.directory) {
		return nil // another node's, or edited by someone: never remove what we did not make
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove the directory: %w", err)
	}
	err := p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
