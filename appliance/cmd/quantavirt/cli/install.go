package cli

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/disks"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
)

// installation is what the flags of system install say.
type installation struct {
	spec.InstallRequest
	file    string
	encrypt bool
	yes     bool
}

func (a *app) systemInstallCmd() *cobra.Command {
	var in installation
	cmd := &cobra.Command{
		Use: "install --disk DISK", Short: "Install the node on a disk, or make a data volume on one", Args: noArgs,
		Long: `Puts the node on a disk: boot loaders for UEFI and BIOS, the system, and a data volume.
DISK is /dev/NAME, serial:…, path:…, wwn:…, smallest or largest; "system disks" shows them.
The system comes from the boot medium, or from --file or --url: a unified kernel image or an update bundle.
A disk that holds anything is refused unless its serial number is given with --wipe-serial.
With --encrypt the data volume opens by itself on this machine's TPM while what boots is the system
that was installed; the recovery key that opens it otherwise is shown once, at the end.`,
		Example: "  quantavirt system install --disk smallest --file quantavirt.efi\n" +
			"  quantavirt system install --disk /dev/sda --wipe-serial WD-1234 --yes\n" +
			"  quantavirt system install --disk serial:S64DNX0R --data-only",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.install(cmd, in) },
	}
	f := cmd.Flags()
	f.StringVar(&in.Disk, "disk", "", "the disk")
	f.StringVar(&in.WipeSerial, "wipe-serial", "", "serial number of the disk, if what is on it may be lost")
	f.BoolVar(&in.DataOnly, "data-only", false, "make a data volume of the whole disk and install nothing")
	f.StringVar(&in.file, "file", "", "unified kernel image or update bundle to install")
	f.StringVar(&in.URL, "url", "", "where the node gets the unified kernel image or update bundle")
	f.StringVar(&in.Sha256, "sha256", "", "SHA-256 of what the URL gives")
	f.BoolVar(&in.encrypt, "encrypt", false, "encrypt the data volume, with a key sealed to the TPM")
	f.BoolVarP(&in.yes, "yes", "y", false, "do not ask")
	return a.addNoWait(cmd)
}

func (a *app) install(cmd *cobra.Command, in installation) error {
	switch {
	case in.Disk == "":
		return usage(cmd, errors.New("--disk is missing"))
	case in.file != "" && (in.URL != "" || in.DataOnly):
		return usage(cmd, errors.New("--file goes with neither --url nor --data-only"))
	}
	if err := disks.CheckSelector(in.Disk); err != nil {
		return usage(cmd, err)
	}
	if !in.yes {
		if err := a.confirmInstall(cmd, in); err != nil {
			return err
		}
	}
	if in.encrypt {
		if a.noWait {
			return usage(cmd, errors.New("--encrypt waits for the end, as it shows the recovery key then"))
		}
		in.RecoveryKey = sealed.NewRecoveryKey()
	}
	if err := a.startInstall(cmd, in); err != nil || !in.encrypt {
		return err
	}
	a.showRecoveryKey(in.RecoveryKey)
	return nil
}

// startInstall has the node install, and waits for it.
func (a *app) startInstall(cmd *cobra.Command, in installation) error {
	label := "install on " + in.Disk
	if in.file == "" {
		return a.act(cmd.Context(), label, func(c *client) (*http.Response, error) {
			return c.Install(cmd.Context(), &spec.InstallParams{}, in.InstallRequest)
		})
	}
	up, err := a.openUpload(in.file, "upload")
	if err != nil {
		return err
	}
	defer up.close()
	return a.act(cmd.Context(), label, func(c *client) (*http.Response, error) {
		defer up.bar.end()
		return c.InstallWithBody(cmd.Context(), &spec.InstallParams{Disk: in.Disk, WipeSerial: in.WipeSerial, RecoveryKey: in.RecoveryKey}, "application/octet-stream", up.body, up.edit)
	})
}

// confirmInstall shows the disk and waits for a yes.
func (a *app) confirmInstall(cmd *cobra.Command, in installation) error {
	if !terminal(a.In) {
		return qverr.New(qverr.Inval, "an installation is asked about on a terminal only").WithHint("say --yes if the disk is the right one")
	}
	ans, err := call[spec.SystemDiskList](a, func(c *client) (*http.Response, error) { return c.ListSystemDisks(cmd.Context()) })
	if err != nil {
		return err
	}
	d, err := disks.Select(ans.value.Items, in.Disk)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Err, "%s, %s %s, %s, is %s. Everything on it will be lost. Go on? [y/N] ", plain(d.String()), plain(d.Bus), plain(d.Model), size(d.SizeBytes), d.State)
	line, _ := bufio.NewReader(a.In).ReadString('\n')
	if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "y") {
		return qverr.New(qverr.State, "nothing was installed")
	}
	return nil
}
