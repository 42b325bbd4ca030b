"""What people see of the gateway from outside: metrics, log lines, trace headers. Every name is declared once here."""
