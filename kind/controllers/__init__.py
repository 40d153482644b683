"""The few controllers a lab needs: what kube-controller-manager and kube-scheduler do (ADR 0061)."""
